import Foundation
import LinuxSystem
import Memtap

extension ForkService {
  /// A fork point that is kept and cloned again and again.
  func createSnapshot(
    of name: String, id: String?, checkpointRequest: UInt32, dropsCache: Bool = false, log: inout PhaseLog
  ) async throws -> SnapshotRecord {
    if let id {
      try checkName(id)
      if snapshots[id] != nil {
        throw ForkError(
          .exists,
          "cannot make snapshot \(id): one of that name exists. Remove it with sfctl snapshot rm \(id), or choose another name."
        )
      }
    }
    let point = try await freezePoint(
      of: name, id: id ?? "s-" + Self.randomHex(8), kept: true, checkpointRequest: checkpointRequest,
      dropsCache: dropsCache, log: &log)
    do {
      _ = try await describe(point, log)
    } catch {
      await forgetSnapshot(point.snapshot.id)
      throw ForkError.wrap("cannot make a snapshot of \(name)", error)
    }
    return snapshots[point.snapshot.id] ?? point.snapshot
  }

  func createOperatorSnapshot(
    of name: String, id: String, dropsCache: Bool
  ) async throws -> SnapshotView {
    guard !id.isEmpty else { throw ForkError(.invalid, "cannot make a snapshot: it has no name. Give one.") }
    var log = PhaseLog()
    let record = try await createSnapshot(
      of: name, id: id, checkpointRequest: 0, dropsCache: dropsCache, log: &log)
    return SnapshotView(record: record, clones: 0, presentBytes: 0)
  }

  func snapshot(_ id: String) throws(ForkError) -> SnapshotRecord {
    guard let record = snapshots[id] else {
      throw ForkError(.notFound, "there is no snapshot \(id). See sfctl snapshot ls.")
    }
    return record
  }

  /// Operator's cloning of a kept snapshot: ticket and clones in one.
  func clone(
    snapshot id: String, count: Int, hosts: [String] = [], distribution: Distribution = .init(),
    report: Report
  ) async throws -> Outcome {
    let record = try snapshot(id)
    if let lost = record.lost {
      throw ForkError(.refused, "cannot clone \(id): \(lost). Make another snapshot.")
    }
    let path = configuration.descriptorPath(id)
    let compatibility = hypervisor.compatibility
    // Nothing is started in the name of a descriptor that does not hold.
    _ = try await workers.run {
      _ = try Self.verifiedDescriptor(path, snapshot: record, compatibility: compatibility)
    }
    let source = CloneSource(
      parent: record.parent, memoryBytes: record.memoryBytes, vcpus: record.vcpus, image: record.image,
      commandLine: record.commandLine, diskBytes: (record.disks ?? []).map(\.virtualBytes),
      family: record.network, traits: record.traits)
    let ticket = try await requestTicket(
      of: source, count: count, hierarchical: false, owner: .operatorCommand, hosts: hosts, report: report)
    do {
      return try await clone(
        snapshot: record, ticket: ticket.id, distribution: distribution, report: report)
    } catch {
      await removeUnusedTicket(ticket.id)
      throw error
    }
  }

  /// Clones a kept snapshot with a ticket that was granted before.
  func clone(
    snapshot: SnapshotRecord, ticket id: String, distribution: Distribution = .init(), report: Report
  ) async throws -> Outcome {
    let ticket = try await claim(id)
    let diskBytes = (snapshot.disks ?? []).map(\.virtualBytes)
    // What disks slots on other hosts have, those hosts know and compare.
    let disksFit = machines(of: id).filter { $0.host == nil }.allSatisfy {
      ($0.disks ?? []).map(\.virtualBytes) == diskBytes
    }
    guard let shape = machines(of: id).first, shape.memoryBytes == snapshot.memoryBytes,
      shape.vcpus == snapshot.vcpus, disksFit,
      shape.network?.family.id == snapshot.network?.id
    else {
      tickets[ticket.id]?.record.state = .granted
      throw ForkError(
        .refused,
        "cannot clone \(snapshot.id) with \(id): the ticket is for another VM. Request one of \(snapshot.parent)."
      )
    }
    tickets[id]?.record.snapshot = snapshot.id
    let deviceState: OwnedDescriptor
    do {
      deviceState = try await readDescriptor(snapshot)
    } catch {
      tickets[id]?.record.state = .granted
      throw ForkError.wrap("cannot clone \(snapshot.id)", error)
    }
    let outcome = try await cloneOnto(
      snapshot, deviceState: deviceState, ticket: id, request: UInt32(snapshot.checkpointRequest),
      log: PhaseLog(), distribution: distribution, report: report)
    remember(outcome)
    return outcome
  }

  /// Removes a kept snapshot. Refused while clones of it live.
  func removeSnapshot(_ id: String) async throws {
    _ = try snapshot(id)
    let clones = liveClones(of: id).count
    if clones > 0 {
      throw ForkError(
        .refused, "cannot remove snapshot \(id): \(clones) clones of it run. End them with sfctl kill first.")
    }
    snapshots[id]?.kept = false
    await release(id)
    await removeUnusedSnapshots()
  }

  func liveClones(of snapshot: String) -> [VMRecord] {
    guests.values.map(\.record).filter { $0.snapshot == snapshot && $0.state != .ended }
  }

  /// Tells the pager that nobody will clone it any more: its pages go with its last user.
  func release(_ id: String) async {
    do {
      try await memtap.run { try $0.drop(snapshot: id) }
    } catch {
      log.error("the pager cannot drop snapshot \(id): \(error)")
    }
  }

  /// Forgets the snapshots that are not kept and have neither clones nor a ticket in progress.
  func removeUnusedSnapshots() async {
    let inProgress = Set(tickets.values.filter { $0.record.state == .cloning }.compactMap(\.record.snapshot))
    for (id, record) in snapshots where !record.kept && !inProgress.contains(id) {
      guard liveClones(of: id).isEmpty else { continue }
      if turns.isTaken(record.parent) {
        removeUnusedSnapshots(after: record.parent)
      } else {
        await forgetSnapshot(id)
      }
    }
  }

  /// Looks again when that VM's turn is over: no other event may come.
  private func removeUnusedSnapshots(after parent: String) {
    guard removalsAfterTurn.insert(parent).inserted else { return }
    Task {
      await takeTurn(parent)
      turns.leave(parent)
      removalsAfterTurn.remove(parent)
      await removeUnusedSnapshots()
    }
  }

  /// Takes away whatever there is of a snapshot but its pages, which the pager keeps as long as they are used.
  func forgetSnapshot(_ id: String) async {
    await withdraw(id)
    if let parent = snapshots[id]?.parent { guests[parent]?.forkPoints?.remove(id) }
    snapshots[id] = nil
    await release(id)
    try? FileManager.default.removeItem(atPath: configuration.snapshotDirectory(id))
    await persist("the end of snapshot \(id)") { try await self.store.delete(snapshot: id) }
  }

  /// Copies what clones of this VM still lack, before it ends in an orderly way.
  func completeSnapshots(of name: String) async {
    if guests[name]?.record.host != nil { return }
    for (id, record) in snapshots where record.parent == name && record.lost == nil {
      guard record.kept || !liveClones(of: id).isEmpty else { continue }
      do {
        try await memtap.run { try $0.complete(snapshot: id) }
      } catch {
        log.error("cannot complete snapshot \(id) before \(name) ends: \(error)")
      }
    }
  }
}
