import ArgumentParser
import Wire

struct SnapshotRemoveCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "rm", abstract: "Remove a fork point; its clones live on.",
    discussion: "EXAMPLE: sfctl snapshot rm warm")

  @Argument(help: "The snapshot's name.") var snapshot: String
  @OptionGroup var output: OutputOptions

  func run() async throws {
    let request = Snowfork_V1_RemoveSnapshotRequest.with { $0.snapshot = snapshot }
    _ = try await Daemon.call { try await $0.removeSnapshot(request) }
    try output.show(RemovedDocument(snapshot: snapshot), text: "snapshot \(snapshot) was removed")
  }

  private struct RemovedDocument: Encodable {
    var snapshot: String
    var removed = true
  }
}
