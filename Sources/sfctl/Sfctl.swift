import ArgumentParser
import Glibc
import LinuxSystem
import Wire

/// The operator's door: each command is one call of the daemon, its answer printed for a person or a script.
@main
struct Sfctl: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "sfctl",
    abstract: "Fork running virtual machines.",
    discussion: """
      EXAMPLE: sfctl vm start dev && sfctl fork dev -n 8

      A daemon (sfd) is started on this machine when none answers. Exit status: 0 done; 1 it failed; 2 the \
      command line is wrong; 3 no such VM, ticket or snapshot; 4 refused; for exec, mpirun
      and offload, the command's own.
      SNOWFORK_RUN (/run/snowfork) and SNOWFORK_STATE (/var/lib/snowfork) say where the daemon keeps its things.
      """,
    version: snowforkVersion,
    subcommands: [
      VMCommand.self, ForkCommand.self, SnapshotCommand.self, CloneCommand.self, PSCommand.self,
      ExecCommand.self, MPIRunCommand.self, OffloadCommand.self, JoinCommand.self, KillCommand.self,
      TicketCommand.self,
      StatsCommand.self,
      TopCommand.self, ReportCommand.self, HostCommand.self, LabCommand.self, ImageCommand.self,
      DaemonCommand.self, DoctorCommand.self,
    ])

  static func main() async {
    reserveStandardDescriptors()
    ignoreBrokenPipes()
    do {
      var command = try parseAsRoot()
      if var asynchronous = command as? any AsyncParsableCommand {
        try await asynchronous.run()
      } else {
        try command.run()
      }
    } catch {
      leave(error)
    }
  }

  /// Says why on stderr and exits with the status of the contract.
  private static func leave(_ error: any Error) -> Never {
    switch error {
    case let failure as Failure:
      Standard.error(failure.message)
      Glibc.exit(failure.status)
    case let code as ExitCode:
      Glibc.exit(code.rawValue)
    default:
      let code = exitCode(for: error)
      if code == .success {
        // --help, --version, --generate-completion-script: what was asked for.
        Standard.output(fullMessage(for: error))
        Glibc.exit(0)
      }
      if code == .validationFailure {
        let (why, command) = Usage.explain(message(for: error), full: fullMessage(for: error))
        Standard.error("cannot read the command line: \(why). Try “\(command) --help”.")
        Glibc.exit(ExitStatus.usage.rawValue)
      }
      Standard.error(Failure(error).message)
      Glibc.exit(ExitStatus.failed.rawValue)
    }
  }
}

/// Takes apart what ArgumentParser says of a wrong command line.
enum Usage {
  /// The reason without its full stop, and the command whose usage was shown (`sfctl vm start`).
  static func explain(_ message: String, full: String) -> (why: String, command: String) {
    let text = message.split(separator: "\n").joined(separator: " ").trimmingSuffix { ".!? ".contains($0) }
    // In the middle of our sentence; an acronym or an option stays as it is.
    let why =
      text.dropFirst().first?.isLowercase == true ? text.prefix(1).lowercased() + text.dropFirst() : text
    let usage = full.split(separator: "\n").first { $0.hasPrefix("Usage: ") }?.dropFirst(7) ?? "sfctl"
    let words = usage.split(separator: " ").prefix { word in
      word.allSatisfy { $0.isLetter || $0 == "-" } && !word.hasPrefix("-")
    }
    return (why, words.isEmpty ? "sfctl" : words.joined(separator: " "))
  }
}

extension String {
  fileprivate func trimmingSuffix(_ isSuffix: (Character) -> Bool) -> String {
    var rest = Substring(self)
    while let last = rest.last, isSuffix(last) { rest.removeLast() }
    return String(rest)
  }
}
