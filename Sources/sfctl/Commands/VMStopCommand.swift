import ArgumentParser
import Wire

struct VMStopCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "stop", abstract: "Shut a device VM down.",
    discussion: "EXAMPLE: sfctl vm stop dev")

  @Argument(help: "The VM's name.") var name: String
  @Option(help: "Seconds to wait for the guest before it is ended at once.") var timeout: UInt32 = 30
  @OptionGroup var output: OutputOptions

  func run() async throws {
    try await stopVM(name, destroy: false, timeout: timeout)
    try output.show(EndedDocument(name: name), text: "\(name) has shut down")
  }
}

/// `vm stop --json` and `vm destroy --json`.
struct EndedDocument: Encodable {
  var name: String
  var state = "ended"
}

/// Ends a VM by the daemon; on return nothing of it is left.
func stopVM(_ name: String, destroy: Bool, timeout: UInt32 = 0) async throws {
  let request = Snowfork_V1_StopVMRequest.with {
    $0.name = name
    $0.destroy = destroy
    $0.timeoutSeconds = timeout
  }
  _ = try await ProgressLine.during("ending \(name)") { _ in
    try await Daemon.call { try await $0.stopVM(request) }
  }
}
