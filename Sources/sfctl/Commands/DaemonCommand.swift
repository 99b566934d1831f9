import ArgumentParser
import Wire

struct DaemonCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "daemon", abstract: "The daemon of this machine.",
    discussion: "EXAMPLE: sfctl daemon status",
    subcommands: [DaemonStatusCommand.self, DaemonStopCommand.self])
}

struct DaemonStatusCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "status", abstract: "Its version and processes, and how guests run here.",
    discussion: "EXAMPLE: sfctl daemon status --json")

  @OptionGroup var output: OutputOptions

  func run() async throws {
    let document = InfoDocument(try await Daemon.callRunning { try await $0.info(.init()) })
    try output.show(document, text: document.text)
  }

  private struct InfoDocument: Encodable {
    var running: Bool
    var version: String
    var host: String
    var pid: Int32
    var memtapPid: Int32
    var accelerator: String
    var acceleratorReason: String
    var hypervisorUri: String

    /// Nil: no daemon runs, and none is started to say so.
    init(_ reply: Snowfork_V1_InfoReply?) {
      let info = reply ?? .init()
      running = reply != nil
      version = info.version
      host = info.host
      pid = info.pid
      memtapPid = info.memtapPid
      accelerator = info.accelerator
      acceleratorReason = info.acceleratorReason
      hypervisorUri = info.hypervisorUri
    }

    var text: String {
      guard running else { return "no daemon runs on this machine; any command that needs one starts it" }
      return """
        sfd \(version) on \(host), pid \(pid); pager pid \(memtapPid)
        \(acceleratorReason)
        libvirt: \(hypervisorUri)
        """
    }
  }
}

struct DaemonStopCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "stop", abstract: "End the daemon. VMs run on, and the next daemon takes them over.",
    discussion: "EXAMPLE: sfctl daemon stop --destroy-vms")

  @Flag(help: "End every VM, ticket and snapshot first; then nothing of snowfork is left running.")
  var destroyVms = false

  func run() async throws {
    let request = Snowfork_V1_ShutdownRequest.with { $0.destroyVms = destroyVms }
    try await ProgressLine.during("ending the daemon") { _ in
      do {
        if destroyVms {
          // Where no daemon runs VMs may: one is started that takes them over, and ends them.
          _ = try await Daemon.call { try await $0.shutdown(request) }
        } else {
          _ = try await Daemon.callRunning { try await $0.shutdown(request) }
        }
      } catch let failure as Failure where failure.isConnectionLost {
        // Its end has cut its own answer off.
      }
      guard try await DaemonStarter(.fromEnvironment()).hasEnded() else {
        throw Failure(
          "the daemon has not ended after 30 s. Its log is \(RuntimePaths.fromEnvironment().daemonLog).")
      }
    }
  }
}
