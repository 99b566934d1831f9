import ArgumentParser

struct VMCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "vm", abstract: "Start and end device VMs.",
    discussion: "EXAMPLE: sfctl vm start dev --memory 512M",
    subcommands: [VMStartCommand.self, VMStopCommand.self, VMDestroyCommand.self])
}
