import ArgumentParser

struct TicketCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "ticket", abstract: "Reservations of clones, and the forks they were used for.",
    discussion: "EXAMPLE: sfctl ticket ls",
    subcommands: [TicketListCommand.self, TicketShowCommand.self])
}
