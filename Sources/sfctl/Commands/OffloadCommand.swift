import ArgumentParser
import Foundation
import Wire

struct OffloadCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "offload",
    abstract: "Run an unmodified program in a guest, each call of one of its functions in a clone.",
    discussion: """
      What a call has changed is merged back into the program, which goes on as if it had run the function itself; \
      whatever fails on the way, it then does. Standard streams, signals and the exit status are the program's; with \
      --json its standard output goes to stderr. docs/offload.md tells the rest.

      EXAMPLE: sfctl offload dev --block lzma_code --to h2 -- xz -k file
      """)

  enum Merge: String, ExpressibleByArgument, CaseIterable { case pages, words }
  enum Clone: String, ExpressibleByArgument, CaseIterable { case auto, fork, kept }
  enum Mode: String, ExpressibleByArgument, CaseIterable { case always, auto, never }

  @Argument(help: "The VM's name.") var name: String
  @Option(help: "The function, by its symbol in the program or one of its libraries; or cc_start's block.")
  var block: String
  @Option(help: "The host for the clones (default: where there is room).") var to: String?
  @Option(
    help: "What is merged; words for programs with threads that run on meanwhile (default: it is seen).")
  var merge: Merge?
  @Option(
    help: "One for each call, or one for all that is kept in step with the program (auto: what costs less).")
  var clone = Clone.auto
  @Option(help: "auto: where it is faster by what has been measured.") var mode = Mode.always
  @Option(help: "NAME=VALUE for the program's environment; may be given again.") var env: [String] = []
  @OptionGroup var output: OutputOptions
  @Argument(parsing: .postTerminator, help: "The program and its arguments, after “--”.")
  var command: [String] = []

  private static let program = "/usr/bin/sf-offload"

  func validate() throws {
    guard !block.isEmpty else { throw ValidationError("--block takes the name of a function.") }
    guard to?.isEmpty != true else { throw ValidationError("--to takes the name of a host.") }
    guard !command.isEmpty else { throw ValidationError("a program is missing after “--”.") }
    for variable in env where variable.first == "=" || !variable.contains("=") {
      throw ValidationError("--env takes NAME=VALUE, not “\(variable)”.")
    }
  }

  func run() async throws {
    var session = try ExecSession()
    if output.json { session.outputStream = .error }
    session.notStartedPrefix = "sfctl: cannot run \(Self.program) in "
    if let to { try await requireHost(to) }
    let mark = "sf-offload report " + String(UInt64.random(in: .min ... .max), radix: 16) + ": "
    session.mark = mark
    let start = start(mark: mark)
    let (status, document) = try await Daemon.call { [session, name] client in
      do {
        let (status, line) = try await session.runMarked(start, client)
        return (status, line.flatMap { OffloadDocument($0) })
      } catch is ExecSession.NotStarted {
        throw Failure(
          "cannot offload in \(name): its image has no \(Self.program), or it does not run there. Make the image again "
            + "with sfctl image build, and start the VM with it.")
      }
    }
    guard let document else {
      // It has said why on stderr; the program was not started.
      if status == ExitStatus.usage.rawValue { throw ExitCode(status) }
      throw Failure(
        "cannot tell what became of \(command[0]) in \(name): sf-offload ended with status \(status) and left no "
          + "report. See sfctl exec \(name) -- dmesg.")
    }
    if output.json {
      Standard.output(document.json)
    } else {
      Standard.error(document.text)
    }
    throw ExitCode(status)
  }

  private func start(mark: String) -> Snowfork_V1_ExecInput.Start {
    .with {
      $0.name = name
      $0.arguments =
        [Self.program, "--block", block, "--mode", mode.rawValue, "--clone", clone.rawValue]
        + (merge.map { ["--merge", $0.rawValue] } ?? [])
        + (to.map { ["--host", $0] } ?? []) + ["--report-mark", mark, "--"] + command
      $0.environment = env
    }
  }

  private func requireHost(_ host: String) async throws {
    let hosts = try await Daemon.call { try await $0.listHosts(.init()) }.hosts.map(\.name)
    guard hosts.contains(host) else {
      throw Failure("cannot offload to \(host): there is no host \(host). See sfctl host ls.", .notFound)
    }
  }
}
