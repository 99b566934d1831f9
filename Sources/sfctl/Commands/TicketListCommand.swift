import ArgumentParser
import Wire

struct TicketListCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "ls", abstract: "List the tickets that have not been joined.",
    discussion: "EXAMPLE: sfctl ticket ls --json")

  @OptionGroup var output: OutputOptions

  func run() async throws {
    let reply = try await Daemon.call { try await $0.listTickets(.init()) }
    let document = TicketListDocument(tickets: reply.tickets.map(TicketListDocument.Ticket.init))
    try output.show(document, text: document.text)
  }
}

struct TicketListDocument: Encodable {
  var tickets: [Ticket]

  struct Ticket: Encodable {
    var ticket: String
    var parent: String
    var snapshot: String
    var state: String
    var requested: UInt32
    var granted: UInt32
    var alive: UInt32

    init(_ ticket: Snowfork_V1_Ticket) {
      self.ticket = ticket.ticket
      parent = ticket.parent
      snapshot = ticket.snapshot
      state = ticket.state
      requested = ticket.requested
      granted = ticket.granted
      alive = ticket.alive
    }
  }

  var text: String {
    var table = Table("TICKET", "PARENT", "SNAPSHOT", "STATE", "REQUESTED", "GRANTED", "ALIVE")
    for ticket in tickets {
      table.add(
        ticket.ticket, ticket.parent, ticket.snapshot, ticket.state, "\(ticket.requested)",
        "\(ticket.granted)",
        "\(ticket.alive)")
    }
    return table.isEmpty ? "no ticket is open; “sfctl ticket show” tells of one that was joined" : table.text
  }
}
