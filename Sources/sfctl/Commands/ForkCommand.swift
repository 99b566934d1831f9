import ArgumentParser
import Wire

struct ForkCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "fork",
    abstract: "Clone a running VM; return when every clone's agent has answered.",
    discussion: "EXAMPLE: sfctl fork dev -n 8 --json")

  @Argument(help: "The VM to fork: a device VM or a clone.") var name: String
  @Option(name: .short, help: "How many clones.") var n: UInt32
  @Option(help: "A host to clone onto; may be given again.") var host: [String] = []
  @Flag(help: "One process for each virtual CPU of a clone, each with an ID of its own.")
  var hierarchical = false
  @OptionGroup var cache: CacheOption
  @OptionGroup var distribution: DistributionOptions
  @OptionGroup var output: OutputOptions

  func validate() throws {
    guard n > 0 else { throw ValidationError("-n takes 1 or more.") }
  }

  func run() async throws {
    let request = Snowfork_V1_ForkRequest.with {
      $0.name = name
      $0.count = n
      $0.hosts = host
      $0.push = distribution.push
      $0.transport = distribution.transport.rawValue
      $0.hierarchical = hierarchical
      $0.dropCache = cache.isDropped
    }
    let result = try await ProgressLine.during("forking \(name)") { line in
      try await Daemon.call { client in
        try await client.fork(request, options: Daemon.options) { response in
          try await response.last(
            progress: { await line.update($0.progress) }, final: { $0.hasResult ? $0.result : nil })
        }
      }
    }
    let document = ForkDocument(result)
    try output.show(document, text: document.text)
    try document.requireAllRunning()
  }
}
