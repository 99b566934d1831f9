import ArgumentParser
import Wire

struct TopCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "top",
    abstract: "A live view of hosts, tickets, and pages on their way.",
    discussion: """
      Rates are of the last interval. q or control-C ends it. Where stdout is no terminal, one view is printed.

      EXAMPLE: sfctl top --interval 0.5
      """)

  @Option(help: "Seconds between two views.") var interval = 1.0
  @Option(name: .shortAndLong, help: "End after so many views.") var count: Int?
  @Flag(help: "One view, without control of the terminal: the same as --count 1.") var once = false
  @OptionGroup var output: OutputOptions

  func validate() throws {
    guard interval >= 0.1, interval <= 3600 else {
      throw ValidationError("--interval is 0.1 to 3600 seconds")
    }
    guard count.map({ $0 > 0 }) ?? true else { throw ValidationError("--count is at least 1") }
  }

  func run() async throws {
    let isLive = !output.json && !once && Screen.isTerminal
    let views = once ? 1 : count ?? (isLive || output.json ? Int.max : 1)
    let screen = isLive ? try Screen() : nil
    defer { screen?.close() }
    var before = try await Self.sample()
    screen?.draw(TopDocument(before, before).lines)
    for _ in 0..<views {
      if let screen {
        if try await screen.waitsForKey(seconds: interval) { return }
      } else {
        try await Task.sleep(for: .seconds(interval))
      }
      let now = try await Self.sample()
      let document = TopDocument(before, now)
      if let screen {
        screen.draw(document.lines)
      } else {
        try output.show(document, text: document.lines.joined(separator: "\n"))
      }
      before = now
    }
  }

  private static func sample() async throws -> TopSample {
    try await Daemon.call { client in
      async let hosts = client.listHosts(.init(), options: Daemon.options).hosts
      async let vms = client.listVMs(.init(), options: Daemon.options).vms
      async let tickets = client.listTickets(.init(), options: Daemon.options).tickets
      async let stats = client.stats(.init(), options: Daemon.options).stats
      return TopSample(
        time: .now, hosts: try await hosts, vms: try await vms, tickets: try await tickets,
        stats: try await stats)
    }
  }
}
