import Foundation
import Replicator
import Wire

/// Device VMs of this host that have a standby on another: begin, end, and the loop that takes checkpoints.
extension ForkService {
  /// On return the standby has a first checkpoint, unless the policy wants none now. A replication to the same host that
  /// there is goes on, changed.
  func replicate(
    _ name: String, to host: String, everyMicroseconds: UInt64, policy file: ReplicationRecord.PolicyFile?
  ) async throws -> ReplicationRecord {
    let what = "cannot replicate \(name)"
    try requireReplicable(name, what)
    guard await host != cluster.host else {
      throw ForkError(.invalid, "\(what): \(host) is its own host. Name another one with --to.")
    }
    guard await cluster.isEnrolled(host) else {
      throw ForkError(.notFound, "\(what): there is no host \(host). See sfctl host ls.")
    }
    guard everyMicroseconds == 0 || everyMicroseconds >= 20_000 else {
      throw ForkError(.invalid, "\(what): more than 50 checkpoints a second. Give --every 0.02 or more.")
    }
    var file = file
    if let given = file {
      guard everyMicroseconds == 0 else {
        throw ForkError(
          .invalid, "\(what): a policy has its own periods. Give --every or --policy, not both.")
      }
      let policy = try Self.parse(given, what)
      if !policy.name.isEmpty { file?.name = policy.name }
    }
    if let known = replications[name] {
      try requireNotReplaced(known, what)
      guard known.host == host else {
        throw ForkError(
          .refused,
          "\(what): its standby is on \(known.host). End that with sfctl replicate \(name) --stop first.")
      }
      replications[name]?.everyMicroseconds = Int64(everyMicroseconds)
      replications[name]?.policy = file
      await saveReplication(name)
      try beginPacing(of: name)
      beginLoop(of: name)
      if known.sequence == 0, await isFirstDue(name) { _ = try await takeCheckpoint(of: name) }
      return replications[name] ?? known
    }
    _ = try await cluster.reach(host)
    replications[name] = ReplicationRecord(
      name: name, replica: Self.randomHex(16), host: host, everyMicroseconds: Int64(everyMicroseconds),
      policy: file)
    await saveReplication(name)
    do {
      try beginPacing(of: name)
      if await isFirstDue(name) { _ = try await takeCheckpoint(of: name) }
    } catch {
      // What was taken is sent on when the host answers; else there is nothing that goes on.
      if replications[name]?.pending != nil { beginLoop(of: name) } else { await endReplication(of: name) }
      throw error
    }
    guard let record = replications[name] else {
      throw ForkError(.failed, "\(what): it was ended meanwhile. Try again.")
    }
    beginLoop(of: name)
    return record
  }

  private func isFirstDue(_ name: String) async -> Bool {
    guard case .notNow? = await decide(for: name, .background) else { return true }
    return false
  }

  func requireNotReplaced(_ record: ReplicationRecord, _ what: String) throws(ForkError) {
    guard record.isReplaced else { return }
    throw ForkError(
      .refused,
      "\(what): its standby runs on host \(record.host) in its place. End one of the two, or forget that with sfctl replicate \(record.name) --stop."
    )
  }

  func requireReplicable(_ name: String, _ what: String) throws(ForkError) {
    let record = try guest(name).record
    guard record.role == .parent else {
      throw ForkError(.refused, "\(what): it is a clone. Replicate the device VM that it was forked from.")
    }
    guard record.state == .running else {
      throw ForkError(.refused, "\(what): it is \(record.state.rawValue). Wait until it runs.")
    }
    if let disk = record.disks?.first(where: { $0.virtualBytes > DisksWriter.diskBytesMax }) {
      throw ForkError(
        .refused,
        "\(what): it has a disk of \(byteText(disk.virtualBytes)). Up to \(byteText(DisksWriter.diskBytesMax)) can be replicated."
      )
    }
  }

  /// The standby stays as it is.
  func stopReplication(of name: String) async throws -> ReplicationRecord {
    guard let record = replications[name] else {
      throw ForkError(
        .notFound, "cannot stop replicating \(name): it is not replicated. See sfctl replica ls.")
    }
    await endReplication(of: name)?.value
    return record
  }

  /// Forgets it, with what it holds here: snapshots and files. Not an error if there is none. Answers what tells the
  /// standby's host, and is not to be waited for with the replication's turn.
  @discardableResult
  func endReplication(of name: String) async -> Task<Void, Never>? {
    replicationLoops.removeValue(forKey: name)?.cancel()
    pacings[name] = nil
    guard let record = replications.removeValue(forKey: name) else { return nil }
    await forgetReplaced(record)
    await persist("the end of a replication") {
      try await self.store.delete(ReplicationRecord.self, key: name)
    }
    for id in record.snapshots { await release(id) }
    configuration.removeReplicaDirectory(configuration.outgoingDirectory(record.replica))
    return Task { await tellEnd(of: record) }
  }

  func saveReplication(_ name: String) async {
    guard let record = replications[name] else { return }
    await persist("the replication of \(name)") { try await self.store.save(record) }
  }

  static func replicationKey(_ name: String) -> String { "replication of \(name)" }

  // MARK: The daemon's coming

  /// Replications and standbys that an earlier daemon had. Before snapshots that nobody knows are dropped.
  func loadReplicas() async throws {
    for record in try await store.load(ReplicationRecord.self) { replications[record.name] = record }
    for record in try await store.load(StandbyRecord.self) { standbys[record.replica] = record }
  }

  /// Snapshots of the pager that replications and standbys hold.
  var replicaSnapshots: Set<String> {
    Set(replications.values.flatMap(\.snapshots) + standbys.values.map(\.snapshot))
  }

  /// After the machines were adopted: replications of VMs that live go on.
  func adoptReplications() async {
    let known = Set((try? await memtap.run { try $0.status().snapshots }) ?? [])
    for (name, record) in replications {
      guard let guest = guests[name], guest.record.state == .running, guest.record.role == .parent else {
        await endReplication(of: name)
        continue
      }
      // What the pager has lost with its memory is sent anew, as a full one.
      if let pending = record.pending, !known.contains(pending.snapshot) { replications[name]?.pending = nil }
      if let base = record.base, !known.contains(base) { replications[name]?.base = nil }
      if record.isReplaced { continue }
      do { try beginPacing(of: name) } catch {
        log.error("\(error)")
        replications[name]?.reason = error.message
      }
      beginLoop(of: name)
    }
    let alive = Set(replications.values.map(\.replica))
    let directory = configuration.replicaDirectory + "/out"
    for replica in (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
    where !alive.contains(replica) {
      configuration.removeReplicaDirectory(configuration.outgoingDirectory(replica))
    }
  }
}
