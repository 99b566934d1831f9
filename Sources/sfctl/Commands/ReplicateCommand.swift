import ArgumentParser
import Foundation
import ReplicationPolicy
import Wire

struct ReplicateCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "replicate",
    abstract: "Keep a standby of a device VM on another host, by incremental checkpoints.",
    discussion: """
      EXAMPLE: sfctl replicate dev --to h2 --every 1

      Returns when the standby has a first checkpoint, or at once if the policy wants none now. Without --every and \
      --policy further ones are taken by “sfctl checkpoint”. “sfctl replica ls” tells what a policy waits for.
      """)

  @Argument(help: "The device VM's name.") var name: String
  @Option(help: "The standby's host.") var to: String?
  @Option(help: "Seconds from one checkpoint to the next, also 0.1.") var every: Double?
  @Option(
    help: ArgumentHelp(
      "A file that says when, by the device's circumstances: its power, its link, what it does.",
      valueName: "file"), completion: .file(extensions: ["json"]))
  var policy: String?
  @Flag(
    inversion: .prefixedNo, help: "Whether bytes over the link cost money, whatever the policy says of it.")
  var metered: Bool?
  @Flag(help: "Take no more checkpoints; the standby stays as it is.") var stop = false
  @OptionGroup var output: OutputOptions

  func validate() throws {
    if stop, to != nil || every != nil || policy != nil || metered != nil {
      throw ValidationError("--stop takes none of --to, --every, --policy and --metered.")
    }
    if every != nil, policy != nil {
      throw ValidationError("A policy has its own periods. Give --every or --policy, not both.")
    }
    if metered != nil, policy == nil {
      throw ValidationError("--metered is for a policy to judge by. Give --policy FILE too.")
    }
    if !stop, to == nil { throw ValidationError("--to HOST is missing.") }
    if let every, !(0.02...86400 * 365).contains(every) {
      throw ValidationError("--every takes 0.02 seconds or more.")
    }
  }

  func run() async throws {
    let file = try policy.map { try Self.read($0) }
    let request = Snowfork_V1_ReplicateRequest.with {
      $0.name = name
      $0.host = to ?? ""
      $0.everyUs = UInt64((every ?? 0) * 1e6)
      $0.stop = stop
      if let policy, let file {
        $0.policy = file
        $0.policyName = ((policy as NSString).lastPathComponent as NSString).deletingPathExtension
      }
      if let metered { $0.metered = metered }
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
        : replica.sequence == 0
          ? "\(name) gets a standby on \(replica.host) when policy \(replica.policy) wants it: \(replica.policyReason)"
          : "\(name) has a standby on \(replica.host), of checkpoint \(replica.sequence)")
  }

  /// Refused before anything is done: what is no policy.
  private static func read(_ path: String) throws(Failure) -> Data {
    let what = "cannot use policy \(path)"
    let file: Data
    do { file = try Data(contentsOf: URL(fileURLWithPath: path)) } catch {
      let reason = access(path, R_OK) == 0 ? "it is no file" : String(cString: strerror(errno))
      throw Failure("\(what): \(reason). Name a file that you may read.")
    }
    do { _ = try Policy(json: Array(file)) } catch {
      throw Failure("\(what): \(error.line.map { "line \($0): " } ?? "")\(error)", .usage)
    }
    return file
  }
}
