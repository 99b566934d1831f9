import Foundation
import Replicator
import Wire

/// Device VMs of this host that have a standby on another: begin, end, and the loop that takes checkpoints.
extension ForkService {
  /// On return the standby has a first checkpoint. A replication to the same host that there is goes on, changed.
  func replicate(_ name: String, to host: String, everyMicroseconds: UInt64) async throws -> ReplicationRecord
  {
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
    if let known = replications[name] {
      guard known.host == host else {
        throw ForkError(
          .refused,
          "\(what): its standby is on \(known.host). End that with sfctl replicate \(name) --stop first.")
      }
      replications[name]?.everyMicroseconds = Int64(everyMicroseconds)
      await saveReplication(name)
      beginLoop(of: name)
      if known.sequence == 0 { _ = try await takeCheckpoint(of: name) }
      return replications[name] ?? known
    }
    _ = try await cluster.reach(host)
    replications[name] = ReplicationRecord(
      name: name, replica: Self.randomHex(16), host: host, everyMicroseconds: Int64(everyMicroseconds))
    await saveReplication(name)
    do {
      _ = try await takeCheckpoint(of: name)
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
    await endReplication(of: name)
    return record
  }

  /// Forgets it, with what it holds here: snapshots and files. Not an error if there is none.
  func endReplication(of name: String) async {
    replicationLoops.removeValue(forKey: name)?.cancel()
    guard let record = replications.removeValue(forKey: name) else { return }
    await persist("the end of a replication") {
      try await self.store.delete(ReplicationRecord.self, key: name)
    }
    for id in record.snapshots { await release(id) }
    configuration.removeReplicaDirectory(configuration.outgoingDirectory(record.replica))
  }

  func saveReplication(_ name: String) async {
    guard let record = replications[name] else { return }
    await persist("the replication of \(name)") { try await self.store.save(record) }
  }

  static func replicationKey(_ name: String) -> String { "replication of \(name)" }

  // MARK: The loop

  /// Checkpoints come by themselves from now on, and what could not be sent is sent when its host answers again.
  func beginLoop(of name: String) {
    replicationLoops[name]?.cancel()
    replicationLoops[name] = Task {
      var due = ContinuousClock.now
      while !Task.isCancelled, let record = replications[name] {
        let every = Duration.microseconds(record.everyMicroseconds)
        due += every
        do { try await Task.sleep(until: max(due, ContinuousClock.now), clock: .continuous) } catch { return }
        if record.everyMicroseconds == 0 {
          do { try await Task.sleep(for: Self.resendInterval) } catch { return }
        }
        due = max(due, ContinuousClock.now - every)
        guard replications[name] != nil, !Task.isCancelled else { return }
        do {
          if record.everyMicroseconds > 0 {
            _ = try await takeCheckpoint(of: name)
          } else if replications[name]?.pending != nil {
            try await sendPending(of: name)
          }
        } catch {
          if Task.isCancelled { return }
          log.notice("checkpoint of \(name): \(error)")
          do { try await Task.sleep(for: .seconds(1)) } catch { return }
        }
      }
    }
  }

  private static let resendInterval = Duration.seconds(1)

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
