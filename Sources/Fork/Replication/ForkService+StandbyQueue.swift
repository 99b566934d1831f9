import Foundation
import Memtap

/// While VMs or snapshots stand on a standby's pages these do not change: checkpoints wait, and are applied in their order
/// when the last one has gone.
extension ForkService {
  /// So many wait; then a full one is wanted, which makes pages of its own.
  static let queueLimit = 64

  /// Whether its next checkpoint can be applied now. To be asked with its turn.
  func isApplicable(_ replica: String) async -> Bool {
    guard let record = standbys[replica], record.queue.isEmpty else { return false }
    return await !isInUse(record)
  }

  private func isInUse(_ record: StandbyRecord) async -> Bool {
    // A ticket's slots are about to stand on it.
    if snapshots[record.snapshot] != nil { return true }
    if disksAreShared(record) { return true }
    let all = (try? await memtap.run { try $0.standbys() }) ?? []
    return all.first { $0.standby == record.snapshot }?.isInUse ?? false
  }

  /// Applies what waits as soon as it can be.
  func settleLater(_ replica: String) {
    guard standbyTenders[replica] == nil else { return }
    standbyTenders[replica] = Task {
      while let record = standbys[replica], !record.queue.isEmpty || snapshots[record.snapshot] != nil {
        do { try await Task.sleep(for: .milliseconds(200)) } catch { break }
        await settle(replica)
      }
      standbyTenders[replica] = nil
    }
  }

  func settle(_ replica: String) async {
    let turn = Self.standbyKey(replica)
    await takeTurn(turn)
    defer { turns.leave(turn) }
    guard let record = standbys[replica], record.state == .standby else { return }
    await endSnapshot(of: record)
    do { try await applyQueue(replica) } catch {
      log.error("what waits for the standby of \(record.name) is given up: \(error)")
      // Its home is told with the next one, and sends a full one.
      standbys[replica]?.queue = []
      await saveStandby(replica)
    }
  }

  /// With its turn. Leaves what can not be applied yet.
  func applyQueue(_ replica: String) async throws {
    let directory = configuration.standbyDirectory(replica)
    while let record = standbys[replica], let next = record.queue.first, await !isInUse(record) {
      try await finishDisks(of: record)
      try await receive(
        Configuration.queuedFile(directory, next.sequence), snapshot: record.snapshot, parent: record.name,
        in: directory)
      standbys[replica]?.sequence = next.sequence
      standbys[replica]?.digest = next.digest
      standbys[replica]?.checkpointUnix = next.takenUnix
      standbys[replica]?.queue.removeFirst()
      await saveStandby(replica)
      guard let applied = standbys[replica] else { return }
      try await finishDisks(of: applied)
      Self.sweep(
        directory, keeping: [next.sequence] + applied.queue.map(\.sequence), disksOf: applied.snapshot)
    }
  }

  /// Nobody makes clones of these pages any more; they go with the last that was made.
  func giveUp(_ snapshot: String) async {
    await release(snapshot)
    if snapshots[snapshot] != nil {
      snapshots[snapshot]?.kept = false
      await removeUnusedSnapshots()
    }
  }

  // MARK: Clones of a standby

  /// Clones that need nothing of the device VM.
  func cloneStandby(
    of name: String, count: Int, hosts: [String], distribution: Distribution, report: Report
  ) async throws -> Outcome {
    let turn = "clones of the standby of \(name)"
    await takeTurn(turn)
    standbysCloned.insert(name)
    defer {
      standbysCloned.remove(name)
      turns.leave(turn)
    }
    return try await clone(
      snapshot: try await snapshot(ofStandby: name), count: count, hosts: hosts, distribution: distribution,
      report: report)
  }

  /// The snapshot by which clones of the standby are made; there is one as long as there are some.
  private func snapshot(ofStandby name: String) async throws -> String {
    let what = "cannot clone the standby of \(name)"
    guard let found = standby(of: name) else {
      throw ForkError(.notFound, "\(what): there is none on this host. See sfctl replica ls.")
    }
    let turn = Self.standbyKey(found.replica)
    await takeTurn(turn)
    defer { turns.leave(turn) }
    let standby = try await confirmedStandby(found.replica, what)
    let id = standby.snapshot
    if snapshots[id] != nil { return id }
    let (machine, state) = try machineAndState(of: standby, what)
    let parent = "\(name.prefix(24))-standby"
    var record = SnapshotRecord(
      id: id, parent: parent, kept: true, image: machine.image, memoryBytes: machine.memoryBytes,
      vcpus: machine.vcpus, commandLine: machine.commandLine, descriptorBytes: 0, pauseMicroseconds: 0,
      createdUnix: standby.checkpointUnix, checkpointRequest: 0)
    record.network = await card(of: machine, for: parent, isNew: true)?.family
    record.traits = machine.traits
    record.disks = try await shareDisks(of: standby, machine)
    let layout = try await memtap.run { try $0.survey(snapshot: id, kernel: nil) }
    let count = try await writeDescriptor(record, deviceState: state, layout: layout)
    record.descriptorBytes = Int64(count)
    snapshots[id] = record
    let made = record
    await persist("snapshot \(id)") { try await self.store.save(made) }
    settleLater(found.replica)
    return id
  }

  /// When the last clone has gone the standby is only that again.
  private func endSnapshot(of standby: StandbyRecord) async {
    let id = standby.snapshot
    guard let record = snapshots[id], liveClones(of: id).isEmpty, !standbysCloned.contains(standby.name)
    else { return }
    await withdraw(id)
    snapshots[id] = nil
    await removeLayers(record.disks)
    try? FileManager.default.removeItem(atPath: configuration.snapshotDirectory(id))
    await persist("the end of snapshot \(id)") { try await self.store.delete(snapshot: id) }
  }
}
