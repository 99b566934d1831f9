import Foundation
import GRPCCore
import Testing
import Wire

/// What the daemon says of standbys: a VM `dev` with a standby on h2.
struct FakeReplicas: Snowfork_V1_Replicas.SimpleServiceProtocol {
  static let replica = Snowfork_V1_Replica.with {
    $0.name = "dev"
    $0.role = "device"
    $0.home = "h1"
    $0.host = "h2"
    $0.state = "replicating"
    $0.sequence = 7
    $0.receivedSequence = 8
    $0.everyUs = 500_000
    $0.checkpointUnix = 1_700_000_000
    $0.memoryBytes = 268_435_456
  }

  private func requireKnown(_ name: String) throws {
    guard name == "dev" else {
      throw RPCError(code: .failedPrecondition, message: "cannot find \(name): it is not replicated. Begin.")
    }
  }

  func replicate(
    request: Snowfork_V1_ReplicateRequest, context: ServerContext
  ) async throws -> Snowfork_V1_Replica {
    try requireKnown(request.name)
    var replica = Self.replica
    replica.everyUs = request.everyUs
    if !request.policy.isEmpty {
      replica.state = "waiting"
      replica.policy = request.policyName
      replica.policyReason =
        "\(request.policy.count) bytes, metered \(request.hasMetered ? "\(request.metered)" : "unknown")"
    }
    if request.stop { replica.state = "ended" }
    return replica
  }

  func takeCheckpoint(
    request: Snowfork_V1_TakeCheckpointRequest, context: ServerContext
  ) async throws -> Snowfork_V1_CheckpointResult {
    try requireKnown(request.name)
    return .with {
      $0.name = "dev"
      $0.host = "h2"
      $0.sequence = 8
      $0.pauseUs = 4200
      $0.dirtyPages = 310
      $0.bytesSent = 8123
      $0.totalUs = 61000
    }
  }

  func listReplicas(
    request: Snowfork_V1_ListReplicasRequest, context: ServerContext
  ) async throws -> Snowfork_V1_ListReplicasReply {
    .with { $0.replicas = [Self.replica] }
  }

  func activateReplica(
    request: Snowfork_V1_ActivateReplicaRequest, context: ServerContext
  ) async throws -> Snowfork_V1_ActivateReplicaReply {
    try requireKnown(request.name)
    return .with { $0.vm = Sample.vm }
  }

  func removeReplica(
    request: Snowfork_V1_RemoveReplicaRequest, context: ServerContext
  ) async throws -> Snowfork_V1_RemoveReplicaReply {
    try requireKnown(request.name)
    return .init()
  }
}

@Suite struct ReplicaTests {
  private func expect(_ arguments: String, prints golden: String) async throws {
    try await FakeDaemon.serving { sfctl in
      let outcome = try await sfctl.shell("\"$SFCTL\" \(arguments) --json")
      #expect(outcome.output == golden + "\n")
      #expect(outcome.error == "")
      #expect(outcome.status == 0)
    }
  }

  private static func replica(
    every: Int, state: String = "replicating", policy: String = "", policyReason: String = ""
  ) -> String {
    #"{"checkpoint_unix":1700000000,"every_us":\#(every),"home":"h1","host":"h2","memory_bytes":268435456,"#
      + #""name":"dev","policy":"\#(policy)","policy_reason":"\#(policyReason)","present_bytes":0,"reason":"","#
      + #""received_sequence":8,"role":"device","sequence":7,"#
      + #""state":"\#(state)"}"#
  }

  @Test func replicate() async throws {
    try await expect("replicate dev --to h2 --every 0.1", prints: Self.replica(every: 100_000))
    try await expect("replicate dev --stop", prints: Self.replica(every: 0, state: "ended"))
  }

  private func withPolicy(_ text: String, _ body: (_ path: String) async throws -> Void) async throws {
    let directory =
      FileManager.default.temporaryDirectory.path + "/policy-\(UInt64.random(in: 0...UInt64.max))"
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: directory) }
    try text.write(toFile: directory + "/mains.json", atomically: true, encoding: .utf8)
    try await body(directory + "/mains.json")
  }

  @Test func policy() async throws {
    let text = "{\"version\": 1,\n \"rules\": [{\"background_s\": 1}]}\n"
    try await withPolicy(text) { path in
      try await expect(
        "replicate dev --to h2 --policy \(path)",
        prints: Self.replica(
          every: 0, state: "waiting", policy: "mains", policyReason: "48 bytes, metered unknown"))
      try await expect(
        "replicate dev --to h2 --policy \(path) --no-metered",
        prints: Self.replica(
          every: 0, state: "waiting", policy: "mains", policyReason: "48 bytes, metered false"))
    }
    try await withPolicy("{\"version\": 1,\n \"rules\": [{\"background_s\": 1, \"perod\": 2}]}") { path in
      try await FakeDaemon.serving { sfctl in
        for (file, words, status) in [
          (path, "line 2: rule 1: “perod” is not known.", 2),
          (path + ".not", "No such file or directory.", 1),
          ("/tmp", "it is no file.", 1),
        ] {
          let outcome = try await sfctl.shell("\"$SFCTL\" replicate dev --to h2 --policy \(file)")
          #expect(outcome.status == status && outcome.output == "")
          #expect(outcome.error.hasPrefix("sfctl: cannot use policy \(file): \(words)"), "\(outcome.error)")
        }
      }
    }
  }

  @Test func checkpoint() async throws {
    try await expect(
      "checkpoint dev",
      prints: #"{"bytes_sent":8123,"dirty_pages":310,"disk_bytes":0,"host":"h2","name":"dev","#
        + #""pause_us":4200,"sequence":8,"total_us":61000}"#)
  }

  @Test func list() async throws {
    try await expect("replica ls", prints: #"{"replicas":["# + Self.replica(every: 500_000) + "]}")
  }

  @Test func remove() async throws {
    try await expect("replica rm dev", prints: #"{"name":"dev","removed":true}"#)
  }

  @Test(arguments: [
    ("replicate dev", 2), ("replicate dev --stop --to h2", 2), ("replicate dev --to h2 --every 0.001", 2),
    ("replicate dev --to h2 --every 1 --policy x", 2), ("replicate dev --to h2 --metered", 2),
    ("replicate dev --stop --policy x", 2), ("checkpoint nobody", 4), ("replica rm nobody", 4),
    ("replica activate nobody", 4),
  ]) func refused(arguments: String, status: Int32) async throws {
    try await FakeDaemon.serving { sfctl in
      let outcome = try await sfctl.shell("\"$SFCTL\" \(arguments) --json")
      #expect(outcome.status == status && outcome.output == "" && outcome.error.hasPrefix("sfctl: "))
    }
  }
}
