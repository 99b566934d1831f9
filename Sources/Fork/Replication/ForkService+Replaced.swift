import Foundation
import GRPCCore
import Wire

/// What the home and the standby's host tell each other beside checkpoints: that the standby runs in its VM's place,
/// and that a replication was ended.
extension ForkService {
  // MARK: The home

  /// Hosts say with each hello which standbys of ours run in their VMs' places.
  func learnReplaced(_ replicas: [Data], on host: String) {
    let replicas = Set(replicas.map { Self.hexadecimal($0) })
    for (name, record) in replications
    where record.host == host && replicas.contains(record.replica) && !record.isReplaced {
      Task {
        let turn = Self.replicationKey(name)
        await takeTurn(turn)
        defer { turns.leave(turn) }
        if replications[name]?.replica == record.replica { await markReplaced(name) }
      }
    }
  }

  /// The standby runs in the VM's place though the VM runs too: no checkpoint is taken of it any more, and that is said
  /// until one of them ends or the user ends the replication. With the replication's turn.
  func markReplaced(_ name: String) async {
    guard let record = replications[name] else { return }
    replicationLoops.removeValue(forKey: name)?.cancel()
    pacings[name] = nil
    replications[name]?.isReplaced = true
    replications[name]?.pending = nil
    replications[name]?.base = nil
    let reason = Self.replacedReason(name, record.host)
    replications[name]?.reason = reason
    await saveReplication(name)
    for id in record.snapshots { await release(id) }
    configuration.removeReplicaDirectory(configuration.outgoingDirectory(record.replica))
    guard !record.isReplaced else { return }
    log.warning("\(reason). End one of the two with sfctl vm destroy \(name), on its host")
    if guests[name] != nil {
      guests[name]?.record.reason = reason
      await save(name)
    }
  }

  private static func replacedReason(_ name: String, _ host: String) -> String {
    "the standby of \(name) runs on host \(host) in its place, and \(name) runs here too"
  }

  /// What was said of a VM whose replication is over holds no more.
  func forgetReplaced(_ record: ReplicationRecord) async {
    let name = record.name
    guard record.isReplaced, guests[name]?.record.reason == Self.replacedReason(name, record.host) else {
      return
    }
    guests[name]?.record.reason = nil
    await save(name)
  }

  /// The standby's host removes what had come of a checkpoint. Returns when it has, or does not answer: then it is told
  /// when it is back. Not with the replication's turn: what is being sent has ended first.
  func tellEnd(of record: ReplicationRecord) async {
    let turn = Self.replicationKey(record.name)
    await takeTurn(turn)
    turns.leave(turn)
    endedReplicas[record.host, default: []].insert(record.replica)
    await tellEnds(to: record.host)
  }

  func tellEnds(to host: String) async {
    let home = await cluster.host
    for replica in endedReplicas[host] ?? [] {
      let request = Snowfork_V1_EndReplicaRequest.with {
        $0.home = home
        $0.replica = Data(bytes(ofHexadecimal: replica))
      }
      do {
        _ = try await cluster.insist(on: host, timeout: .seconds(5)) { connection, options in
          try await connection.replicas.endReplica(request, options: options)
        }
        endedReplicas[host]?.remove(replica)
      } catch {
        log.notice("host \(host) was not told that a replication has ended: \(error)")
        return
      }
    }
    if endedReplicas[host]?.isEmpty == true { endedReplicas[host] = nil }
  }

  // MARK: The standby's host

  /// Standbys of a host's VMs that run in their places. One that was started by another name is activated too, until it is
  /// forgotten a moment later: it replaces nobody.
  func replacing(of home: String) -> [Data] {
    standbys.values.filter { $0.state == .activated && $0.home == home && guests[$0.name] != nil }.map {
      Data(bytes(ofHexadecimal: $0.replica))
    }
  }

  /// No checkpoint follows. What had come of one goes; the standby stays.
  func endReplica(_ request: Snowfork_V1_EndReplicaRequest) async throws {
    let replica = Self.hexadecimal(request.replica)
    guard request.replica.count == 16 else {
      throw ForkError(.invalid, "cannot end a replication: its name makes no sense.")
    }
    let turn = Self.standbyKey(replica)
    await takeTurn(turn)
    defer { turns.leave(turn) }
    let directory = configuration.standbyDirectory(replica)
    guard let known = standbys[replica] else {
      configuration.removeReplicaDirectory(directory)
      return
    }
    guard known.home == request.home else {
      throw ForkError(.refused, "cannot end the replication of \(known.name): its home is \(known.home).")
    }
    for file in (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
    where file.hasPrefix("incoming-") { unlink("\(directory)/\(file)") }
  }
}
