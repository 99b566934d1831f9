import Foundation

/// At home: what a checkpoint leaves when it is the standby's, or can not become that.
extension ForkService {
  /// It is the standby's: what it changed is not needed any more.
  func acknowledged(_ name: String, _ pending: ReplicationRecord.Pending) async {
    guard let record = replications[name] else { return }
    replications[name]?.sequence = pending.sequence
    replications[name]?.digest = pending.digest
    replications[name]?.base = pending.snapshot
    replications[name]?.baseDisks = pending.disks
    replications[name]?.checkpointUnix = pending.takenUnix
    replications[name]?.pending = nil
    replications[name]?.reason = nil
    await saveReplication(name)
    if let base = record.base, base != pending.snapshot { await release(base) }
    let directory = configuration.outgoingDirectory(record.replica)
    unlink(Configuration.checkpointFile(directory, pending.sequence))
    for file in (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
    where file != "state-\(pending.sequence)" { unlink("\(directory)/\(file)") }
  }

  func dropBase(of name: String) async {
    guard let base = replications[name]?.base else { return }
    replications[name]?.base = nil
    await saveReplication(name)
    await release(base)
  }

  func dropPending(of name: String, base isLost: Bool) async {
    guard let record = replications[name] else { return }
    replications[name]?.pending = nil
    if isLost { replications[name]?.base = nil }
    await saveReplication(name)
    if let pending = record.pending {
      await release(pending.snapshot)
      unlink(
        Configuration.checkpointFile(configuration.outgoingDirectory(record.replica), pending.sequence))
    }
    if isLost, let base = record.base { await release(base) }
  }
}
