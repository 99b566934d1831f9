import ArgumentParser
import Wire

struct SnapshotListCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "ls", abstract: "List the fork points.", discussion: "EXAMPLE: sfctl snapshot ls --json")

  @OptionGroup var output: OutputOptions

  func run() async throws {
    let reply = try await Daemon.call { try await $0.listSnapshots(.init()) }
    let document = SnapshotListDocument(snapshots: reply.snapshots.map(SnapshotDocument.init))
    try output.show(document, text: document.text)
  }
}
