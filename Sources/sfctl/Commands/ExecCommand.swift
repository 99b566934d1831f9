import ArgumentParser
import Wire

struct ExecCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "exec",
    abstract: "Run a command in a guest: stdin, stdout, stderr, signals and exit status pass through.",
    discussion: "EXAMPLE: tar c . | sfctl exec dev -- tar x -C /tmp")

  @Argument(help: "The VM's name.") var name: String
  @Option(help: "NAME=VALUE for the command's environment; may be given again.") var env: [String] = []
  @Argument(parsing: .postTerminator, help: "The command and its arguments, after “--”.")
  var command: [String] = []

  func validate() throws {
    guard !command.isEmpty else { throw ValidationError("a command is missing after “--”.") }
    for variable in env where variable.first == "=" || !variable.contains("=") {
      throw ValidationError("--env takes NAME=VALUE, not “\(variable)”.")
    }
  }

  func run() async throws {
    let start = Snowfork_V1_ExecInput.Start.with {
      $0.name = name
      $0.arguments = command
      $0.environment = env
    }
    let session = try ExecSession()
    throw ExitCode(try await Daemon.call { try await session.run(start, $0) })
  }
}
