import Foundation
import GRPCCore
import Memtap
import Wire

/// Calls of sfctl about standbys, and of other hosts' daemons that pass theirs on. No logic of its own.
struct ReplicasAPI: Snowfork_V1_Replicas.SimpleServiceProtocol {
  let service: ForkService

  func replicate(
    request: Snowfork_V1_ReplicateRequest, context: ServerContext
  ) async throws -> Snowfork_V1_Replica {
    try await asStatus("cannot replicate \(request.name)") {
      if request.stop { return await service.wire(try await service.stopReplication(of: request.name)) }
      try await service.requireHere(request.name, to: "replicate \(request.name)")
      return await service.wire(
        try await service.replicate(
          request.name, to: request.host, everyMicroseconds: request.everyUs, policy: request.policyFile))
    }
  }

  func takeCheckpoint(
    request: Snowfork_V1_TakeCheckpointRequest, context: ServerContext
  ) async throws -> Snowfork_V1_CheckpointResult {
    try await asStatus("cannot take a checkpoint of \(request.name)") {
      try await service.requireHere(request.name, to: "take a checkpoint of \(request.name)")
      let outcome = try await service.takeCheckpoint(of: request.name, for: .onDemand)
      return .with {
        $0.name = outcome.name
        $0.host = outcome.host
        $0.sequence = UInt64(outcome.sequence)
        $0.pauseUs = outcome.pauseMicroseconds
        $0.dirtyPages = outcome.dirtyPages
        $0.bytesSent = outcome.bytesSent
        $0.diskBytes = outcome.diskBytes
        $0.totalUs = outcome.totalMicroseconds
      }
    }
  }

  func listReplicas(
    request: Snowfork_V1_ListReplicasRequest, context: ServerContext
  ) async throws -> Snowfork_V1_ListReplicasReply {
    try await asStatus("cannot list replicas") {
      var replicas = try await service.replicaViews()
      if !request.localOnly { replicas += await service.replicasElsewhere().flatMap(\.answer) }
      let all = replicas
      return .with { $0.replicas = all }
    }
  }

  func activateReplica(
    request: Snowfork_V1_ActivateReplicaRequest, context: ServerContext
  ) async throws -> Snowfork_V1_ActivateReplicaReply {
    try await asStatus("cannot activate the standby of \(request.name)") {
      if !request.localOnly, let host = await service.standbyHost(of: request.name) {
        var forwarded = request
        forwarded.localOnly = true
        return try await service.cluster.reach(host).standbys.activateReplica(forwarded)
      }
      let record = try await service.activateStandby(of: request.name, as: request.newName)
      let host = await service.cluster.host
      let vm = try await service.vms(includingEnded: false).first { $0.record.name == record.name }
      return .with { $0.vm = vm?.wire(host: host) ?? .init() }
    }
  }

  func removeReplica(
    request: Snowfork_V1_RemoveReplicaRequest, context: ServerContext
  ) async throws -> Snowfork_V1_RemoveReplicaReply {
    try await asStatus("cannot remove the standby of \(request.name)") {
      try await service.removeReplica(request)
      return .init()
    }
  }

  private func asStatus<T>(_ what: String, _ body: () async throws -> T) async throws -> T {
    do {
      return try await body()
    } catch let error as RPCError {
      // Another host's: what came with it belongs to that answer.
      throw RPCError(code: error.code, message: error.message)
    } catch {
      let error = ForkError.wrap(what, error)
      throw RPCError(code: error.status, message: error.message)
    }
  }
}

extension Snowfork_V1_ForkReply {
  static func progress(_ progress: ForkService.Progress) -> Self { .with { $0.progress = progress.wire } }
}

/// sfd to sfd. Only enrolled hosts get here (`MembersOnly`).
struct ReplicaPeerAPI: Snowfork_V1_ReplicaPeer.SimpleServiceProtocol {
  let service: ForkService

  func putCheckpoint(
    request: Snowfork_V1_PutCheckpointRequest, context: ServerContext
  ) async throws -> Snowfork_V1_PutCheckpointReply {
    try PeerAPI.checkSpeaker(request.home, context)
    do {
      return try await service.put(request)
    } catch {
      let error = ForkError.wrap("cannot take a checkpoint of \(request.name)", error)
      throw RPCError(code: error.status, message: error.message)
    }
  }

  func endReplica(
    request: Snowfork_V1_EndReplicaRequest, context: ServerContext
  ) async throws -> Snowfork_V1_EndReplicaReply {
    try PeerAPI.checkSpeaker(request.home, context)
    do { try await service.endReplica(request) } catch {
      let error = ForkError.wrap("cannot end a replication", error)
      throw RPCError(code: error.status, message: error.message)
    }
    return .init()
  }
}

extension Snowfork_V1_ReplicateRequest {
  fileprivate var policyFile: ReplicationRecord.PolicyFile? {
    guard !policy.isEmpty else { return nil }
    return .init(
      name: policyName, text: String(decoding: policy, as: UTF8.self), isMetered: hasMetered ? metered : nil)
  }
}

extension ForkService {
  func wire(_ record: ReplicationRecord) async -> Snowfork_V1_Replica {
    let home = await cluster.host
    return .with {
      $0.name = record.name
      $0.role = "device"
      $0.home = home
      $0.host = record.host
      $0.state = state(of: record)
      $0.policy = record.policy?.name ?? ""
      $0.policyReason = pacings[record.name]?.why ?? ""
      $0.sequence = UInt64(record.sequence)
      $0.receivedSequence = UInt64(max(record.takenSequence, record.sequence))
      $0.everyUs = UInt64(record.everyMicroseconds)
      $0.checkpointUnix = record.checkpointUnix
      $0.memoryBytes = UInt64(guests[record.name]?.record.memoryBytes ?? 0)
      $0.reason = record.reason ?? ""
    }
  }

  private func state(of record: ReplicationRecord) -> String {
    if replications[record.name]?.replica != record.replica { return "ended" }
    if record.isReplaced { return "replaced" }
    if record.reason != nil { return "interrupted" }
    return pacings[record.name]?.isWaiting == true ? "waiting" : "replicating"
  }

  /// Of this host: its VMs that are replicated, then standbys of others' VMs.
  func replicaViews() async throws -> [Snowfork_V1_Replica] {
    var views: [Snowfork_V1_Replica] = []
    for record in replications.values.sorted(by: { $0.name < $1.name }) { views.append(await wire(record)) }
    let host = await cluster.host
    let counters = try await memtap.run { try $0.statistics().snapshots }
    let present = Dictionary(
      counters.map { ($0.snapshot, $0.pagesPresent * 4096) }, uniquingKeysWith: { first, _ in first })
    for record in standbys.values.sorted(by: { $0.name < $1.name }) where record.state != .activated {
      views.append(
        .with {
          $0.name = record.name
          $0.role = "standby"
          $0.home = record.home
          $0.host = host
          $0.state = record.state.rawValue
          $0.sequence = UInt64(record.sequence)
          $0.receivedSequence = UInt64(record.received.sequence)
          $0.checkpointUnix = record.checkpointUnix
          $0.memoryBytes = UInt64(record.memoryBytes)
          $0.presentBytes = present[record.snapshot] ?? 0
        })
    }
    return views
  }

  func replicasElsewhere() async -> [(host: String, answer: [Snowfork_V1_Replica])] {
    await askOthers { connection in
      try await connection.standbys.listReplicas(
        .with { $0.localOnly = true }, options: .within(.seconds(5))
      ).replicas
    }
  }

  /// What is called so on this host is a standby, and neither a VM nor a snapshot.
  func isStandbyOnly(_ name: String) -> Bool {
    standby(of: name) != nil && guests[name] == nil && snapshots[name] == nil
  }

  /// The other host that has the standby; nil: it is here, or there is none.
  func standbyHost(of name: String) async -> String? {
    guard standby(of: name) == nil else { return nil }
    return await replicasElsewhere().first { _, replicas in
      replicas.contains { $0.role == "standby" && $0.name == name }
    }?.host
  }

  /// Ends the replication, if the VM is here, and removes the standby wherever it is.
  func removeReplica(_ request: Snowfork_V1_RemoveReplicaRequest) async throws {
    let name = request.name
    let wasReplicated = replications[name] != nil
    if wasReplicated { await endTurn(of: name)?.value }
    if let record = standby(of: name) {
      let turn = Self.standbyKey(record.replica)
      await takeTurn(turn)
      defer { turns.leave(turn) }
      await dropStandby(record.replica)
      return
    }
    if !request.localOnly, let host = await standbyHost(of: name) {
      var forwarded = request
      forwarded.localOnly = true
      _ = try await cluster.reach(host).standbys.removeReplica(forwarded)
      return
    }
    if !wasReplicated {
      throw ForkError(.notFound, "cannot remove the standby of \(name): there is none. See sfctl replica ls.")
    }
  }

  /// Not in the middle of a checkpoint.
  private func endTurn(of name: String) async -> Task<Void, Never>? {
    let turn = Self.replicationKey(name)
    await takeTurn(turn)
    defer { turns.leave(turn) }
    return await endReplication(of: name)
  }
}
