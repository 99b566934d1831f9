import ArgumentParser
import Wire

struct CheckpointCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "checkpoint", abstract: "Bring the standby of a device VM up to date now.",
    discussion: "EXAMPLE: sfctl checkpoint dev --json")

  @Argument(help: "The device VM's name.") var name: String
  @OptionGroup var output: OutputOptions

  func run() async throws {
    let request = Snowfork_V1_TakeCheckpointRequest.with { $0.name = name }
    let result = try await ProgressLine.during("taking a checkpoint of \(name)") { _ in
      try await Daemon.callReplicas { try await $0.takeCheckpoint(request) }
    }
    try output.show(
      CheckpointDocument(result),
      text: "checkpoint \(result.sequence) of \(name) is on \(result.host): \(result.dirtyPages) pages, "
        + "\(Units.bytes(result.bytesSent)) in \(Units.microseconds(result.totalUs)); "
        + "\(name) paused \(Units.microseconds(result.pauseUs))")
  }
}
