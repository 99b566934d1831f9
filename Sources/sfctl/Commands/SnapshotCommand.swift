import ArgumentParser

struct SnapshotCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "snapshot", abstract: "Fork points that are kept and cloned again and again.",
    discussion: "EXAMPLE: sfctl snapshot create dev warm && sfctl clone warm -n 4",
    subcommands: [SnapshotCreateCommand.self, SnapshotListCommand.self, SnapshotRemoveCommand.self])
}
