import ArgumentParser
import Wire

struct ReplicateCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "replicate",
    abstract: "Keep a standby of a device VM on another host, by incremental checkpoints.",
    discussion: """
      EXAMPLE: sfctl replicate dev --to h2 --every 1

      Returns when the standby has a first checkpoint. Without --every further ones are taken by “sfctl checkpoint”.
      """)

  @Argument(help: "The device VM's name.") var name: String
  @Option(help: "The standby's host.") var to: String?
  @Option(help: "Seconds from one checkpoint to the next, also 0.1.") var every: Double?
  @Flag(help: "Take no more checkpoints; the standby stays as it is.") var stop = false
  @OptionGroup var output: OutputOptions

  func validate() throws {
    if stop, to != nil || every != nil { throw ValidationError("--stop takes neither --to nor --every.") }
    if !stop, to == nil { throw ValidationError("--to HOST is missing.") }
    if let every, !(0.02...86400 * 365).contains(every) {
      throw ValidationError("--every takes 0.02 seconds or more.")
    }
  }

  func run() async throws {
    let request = Snowfork_V1_ReplicateRequest.with {
      $0.name = name
      $0.host = to ?? ""
      $0.everyUs = UInt64((every ?? 0) * 1e6)
      $0.stop = stop
    }
    let replica = try await ProgressLine.during(stop ? "ending" : "sending the first checkpoint of \(name)") {
      _ in
      try await Daemon.callReplicas { try await $0.replicate(request) }
    }
    let document = ReplicaDocument(replica)
    try output.show(
      document,
      text: stop
        ? "\(name) is not replicated any more; its standby on \(replica.host) has checkpoint \(replica.sequence)"
        : "\(name) has a standby on \(replica.host), of checkpoint \(replica.sequence)")
  }
}
