import ArgumentParser
import Wire

struct SnapshotCreateCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "create", abstract: "Keep a fork point of a running VM.",
    discussion: "EXAMPLE: sfctl snapshot create dev warm")

  @Argument(help: "The VM's name.") var name: String
  @Argument(help: "The snapshot's name.") var snapshot: String
  @OptionGroup var cache: CacheOption
  @OptionGroup var output: OutputOptions

  func run() async throws {
    let request = Snowfork_V1_CreateSnapshotRequest.with {
      $0.name = name
      $0.snapshot = snapshot
      $0.dropCache = cache.isDropped
    }
    let info = try await ProgressLine.during("freezing \(name)") { _ in
      try await Daemon.call { try await $0.createSnapshot(request) }
    }
    try output.show(
      SnapshotDocument(info),
      text: "snapshot \(info.snapshot) of \(info.parent): descriptor \(Units.bytes(info.descriptorBytes)); "
        + "\(info.parent) paused \(Units.microseconds(info.parentPauseUs))")
  }
}
