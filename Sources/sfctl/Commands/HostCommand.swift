import ArgumentParser

struct HostCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "host", abstract: "The hosts that VMs run on.", discussion: "EXAMPLE: sfctl host ls",
    subcommands: [
      HostListCommand.self, HostInitCommand.self, HostAddCommand.self, HostJoinCommand.self,
      HostRemoveCommand.self,
    ])
}
