import ArgumentParser
import Wire

struct KillCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "kill", abstract: "End all clones of a ticket, or one VM.",
    discussion: "EXAMPLE: sfctl kill dev.3")

  @Argument(help: "A ticket, or a VM's name.") var target: String
  @OptionGroup var output: OutputOptions

  func run() async throws {
    let request = Snowfork_V1_KillRequest.with { $0.target = target }
    let reply = try await ProgressLine.during("ending \(target)") { _ in
      try await Daemon.call { try await $0.kill(request) }
    }
    try output.show(
      KilledDocument(target: target, ended: reply.ended),
      text: "\(reply.ended) \(reply.ended == 1 ? "VM was" : "VMs were") ended")
  }

  private struct KilledDocument: Encodable {
    var target: String
    var ended: UInt32
  }
}
