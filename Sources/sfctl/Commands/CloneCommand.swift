import ArgumentParser
import Wire

struct CloneCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "clone", abstract: "Clone a kept snapshot; return when every clone's agent has answered.",
    discussion: "EXAMPLE: sfctl clone warm -n 4")

  @Argument(help: "The snapshot's name.") var snapshot: String
  @Option(name: .short, help: "How many clones.") var n: UInt32
  @Option(help: "A host to clone onto; may be given again.") var host: [String] = []
  @OptionGroup var distribution: DistributionOptions
  @OptionGroup var output: OutputOptions

  func validate() throws {
    guard n > 0 else { throw ValidationError("-n takes 1 or more.") }
  }

  func run() async throws {
    let request = Snowfork_V1_CloneSnapshotRequest.with {
      $0.snapshot = snapshot
      $0.count = n
      $0.hosts = host
      $0.push = distribution.push
      $0.transport = distribution.transport.rawValue
    }
    let result = try await ProgressLine.during("cloning \(snapshot)") { line in
      try await Daemon.call { client in
        try await client.cloneSnapshot(request, options: Daemon.options) { response in
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
