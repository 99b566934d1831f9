import ArgumentParser
import Wire

struct StatsCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "stats", abstract: "What was fetched, from where, how fast.",
    discussion: "EXAMPLE: sfctl stats dev.1 --json")

  @Argument(help: "A VM, ticket or snapshot; all of them if left out.") var target: String?
  @OptionGroup var output: OutputOptions

  func run() async throws {
    let request = Snowfork_V1_StatsRequest.with { $0.target = target ?? "" }
    let reply = try await Daemon.call { try await $0.stats(request) }
    let list = StatsListDocument(stats: reply.stats.map(StatsDocument.init))
    guard let target else { return try output.show(list, text: list.text) }
    guard let one = list.stats.first else {
      throw Failure(
        "no figures of \(target): no VM, ticket or snapshot is so named. Try “sfctl ps”.", .notFound)
    }
    try output.show(one, text: list.text)
  }
}
