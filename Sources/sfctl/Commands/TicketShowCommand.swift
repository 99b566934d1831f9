import ArgumentParser
import Wire

struct TicketShowCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "show",
    abstract: "A fork's timeline, and what each clone touched; also after it was joined.",
    discussion: "EXAMPLE: sfctl ticket show t-0123456789abcdef")

  @Argument(help: "The ticket.") var ticket: String
  @OptionGroup var output: OutputOptions

  func run() async throws {
    let request = Snowfork_V1_DescribeTicketRequest.with { $0.ticket = ticket }
    let document = ForkDocument(try await Daemon.call { try await $0.describeTicket(request) })
    try output.show(document, text: document.timeline)
  }
}
