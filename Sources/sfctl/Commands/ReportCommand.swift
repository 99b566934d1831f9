import ArgumentParser
import Foundation
import Wire

struct ReportCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "report",
    abstract: "A page on one fork: its timeline, how pages came to each host, and which.",
    discussion: """
      The page is one file without anything from elsewhere. Ask while the clones live: what came of their memory is \
      forgotten with the last of them.

      EXAMPLE: sfctl report t-0123456789abcdef --html fork.html
      """)

  @Argument(help: "The ticket.") var ticket: String
  @Option(name: .customLong("html"), help: "The file to write; - for stdout.") var file: String

  func run() async throws {
    let ticket = ticket
    let fork = try await Daemon.call { client in
      try await client.describeTicket(.with { $0.ticket = ticket })
    }
    var page = ReportPage(fork: ForkDocument(fork))
    do {
      page.history = try await Daemon.call { client in
        try await client.ticketHistory(.with { $0.ticket = ticket })
      }
    } catch let failure as Failure where failure.status == ExitStatus.refused.rawValue {
      page.missing = failure.message
      Standard.error("the report has only the timeline: \(failure.message)")
    }
    try write(page.html)
  }

  /// All of it or nothing.
  private func write(_ html: String) throws {
    if file == "-" { return Standard.output(html) }
    let draft = "\(file).\(getpid()).new"
    guard FileManager.default.createFile(atPath: draft, contents: Data(html.utf8)), rename(draft, file) == 0
    else {
      let reason = String(cString: strerror(errno))
      unlink(draft)
      throw Failure("cannot write \(file): \(reason). Name a file in a directory that you may write.")
    }
  }
}
