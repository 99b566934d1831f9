import ArgumentParser
import Wire

struct JoinCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "join", abstract: "Wait until every clone of a ticket has ended, and say how.",
    discussion: "EXAMPLE: sfctl join t7 --timeout 60")

  @Argument(help: "The ticket.") var ticket: String
  @Option(help: "Give up after so many seconds; the clones run on.") var timeout: Double?
  @OptionGroup var output: OutputOptions

  func validate() throws {
    if let timeout, !(timeout > 0 && timeout.isFinite) {
      throw ValidationError("--timeout takes a number of seconds over 0.")
    }
  }

  func run() async throws {
    let request = Snowfork_V1_JoinRequest.with {
      $0.ticket = ticket
      $0.timeoutSeconds = timeout ?? 0
    }
    let statuses = try await ProgressLine.during("waiting for the clones of \(ticket)") { line in
      try await Daemon.call { client in
        try await client.join(request, options: Daemon.options) { response in
          try await response.last(
            progress: { await line.update($0.progress) }, final: { $0.finished ? $0.statuses : nil })
        }
      }
    }
    let document = JoinDocument(ticket: ticket, statuses)
    try output.show(document, text: document.text)
  }
}
