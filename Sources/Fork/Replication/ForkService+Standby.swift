import Foundation
import Memtap
import Replicator
import Wire

/// Standbys on this host of other hosts' VMs: checkpoints come, are verified whole and applied.
///
/// A standby is pages (the pager's, of one checkpoint at every instant) and files here, of which those of that
/// checkpoint count: so the pager's step is the one that makes a checkpoint the standby's.
extension ForkService {
  static func standbyKey(_ replica: String) -> String { "standby \(replica)" }

  func standby(of name: String) -> StandbyRecord? {
    standbys.values.first { $0.name == name && $0.state != .activated }
  }

  /// Takes bytes of a checkpoint. The same may come again.
  func put(_ request: Snowfork_V1_PutCheckpointRequest) async throws -> Snowfork_V1_PutCheckpointReply {
    let replica = Self.hexadecimal(request.replica)
    guard request.replica.count == 16, request.digest.count == 32, request.totalBytes <= 17 << 40 else {
      throw ForkError(.invalid, "cannot take a checkpoint: its head makes no sense.")
    }
    try checkName(request.name)
    let turn = Self.standbyKey(replica)
    await takeTurn(turn)
    defer { turns.leave(turn) }
    let known = standbys[replica]
    if let known, known.home != request.home {
      throw ForkError(.refused, "cannot take a checkpoint of \(request.name): its home is \(known.home).")
    }
    func reply(
      _ verdict: Snowfork_V1_PutCheckpointReply.Verdict, offset: UInt64 = 0, _ reason: String = ""
    ) -> Snowfork_V1_PutCheckpointReply {
      .with {
        $0.verdict = verdict
        $0.offset = offset
        $0.sequence = UInt64(standbys[replica]?.sequence ?? 0)
        $0.reason = reason
      }
    }
    if known?.state == .activated { return reply(.activated, "it took the place of \(request.name)") }
    let digest = Self.hexadecimal(request.digest)
    if let known, known.digest == digest {
      try await finishDisks(of: known)
      return reply(.applied)
    }
    if let known, known.queue.contains(where: { $0.digest == digest }) { return reply(.received) }
    if request.base != 0 {
      let received = known?.received
      guard let known, !known.snapshot.isEmpty, received?.sequence == Int64(request.base),
        received?.digest == Self.hexadecimal(request.baseDigest)
      else {
        return reply(
          .stale, "checkpoint \(request.base) is wanted for it, and \(received?.sequence ?? 0) is here")
      }
      guard known.queue.count < Self.queueLimit else {
        return reply(.stale, "\(known.queue.count) checkpoints wait for what stands on the standby")
      }
    } else if let other = standby(of: request.name), other.replica != replica, other.home != request.home {
      throw ForkError(
        .refused,
        "a standby of a VM \(request.name) of host \(other.home) is here. Remove it with sfctl replica rm \(request.name)."
      )
    }
    let directory = configuration.standbyDirectory(replica)
    let path = "\(directory)/incoming-\(digest.prefix(32))"
    let bytes = request.bytes
    let (total, offset) = (request.totalBytes, request.offset)
    let there = try await workers.run {
      try Self.append(bytes, at: offset, to: path, in: directory, total: total)
    }
    guard there == total else { return reply(.receiving, offset: there) }
    do {
      return reply(try await apply(path, request, replica: replica) ? .applied : .received)
    } catch let error as CheckpointError {
      // Nothing of it was used.
      unlink(path)
      log.error("a checkpoint of \(request.name) was refused: \(error)")
      return reply(.stale, "\(error)")
    }
  }

  /// Bytes that follow what is there are added; answers how much is there then. What is left of others is removed.
  private static func append(
    _ bytes: Data, at offset: UInt64, to path: String, in directory: String, total: UInt64
  ) throws -> UInt64 {
    let files = FileManager.default
    try files.createDirectory(atPath: directory, withIntermediateDirectories: true)
    if !files.fileExists(atPath: path) {
      for name in try files.contentsOfDirectory(atPath: directory) where name.hasPrefix("incoming-") {
        unlink("\(directory)/\(name)")
      }
      guard files.createFile(atPath: path, contents: nil, attributes: [.posixPermissions: 0o600]) else {
        throw ForkError(.failed, "cannot write \(path). Is there room?")
      }
    }
    guard let file = FileHandle(forWritingAtPath: path) else {
      throw ForkError(.failed, "cannot write \(path).")
    }
    defer { try? file.close() }
    let size = try file.seekToEnd()
    guard size <= total else {
      unlink(path)
      return 0
    }
    guard offset == size, size + UInt64(bytes.count) <= total else { return size }
    try file.write(contentsOf: bytes)
    return size + UInt64(bytes.count)
  }

  // MARK: Applying

  /// False: it waits for what stands on the standby.
  private func apply(
    _ path: String, _ request: Snowfork_V1_PutCheckpointRequest, replica: String
  ) async throws -> Bool {
    let known = standbys[replica]
    if let known { try await finishDisks(of: known) }
    let directory = configuration.standbyDirectory(replica)
    let sequence = Int64(request.sequence)
    let (digest, base) = (Array(request.digest), request.base)
    let (machine, ramBytes) = try await workers.run {
      let file = try CheckpointFile.open(path)
      let header = try file.verify()
      guard header.digest == digest, header.sequence == UInt64(sequence), header.base == base,
        Self.hexadecimal(header.replica) == replica,
        header.baseDigest == Array(request.baseDigest)
          || header.isFull
      else { throw CheckpointError.format("it is another one than was announced") }
      let metadata = try file.contents(of: header.metadata)
      guard let machine = try? JSONDecoder().decode(ReplicaMachine.self, from: Data(metadata)) else {
        throw CheckpointError.format("what it says of its VM does not read")
      }
      guard try file.disks(header).map(\.bytes) == machine.diskBytes ?? [] else {
        throw CheckpointError.format("its disks have other sizes than its VM's")
      }
      let before =
        header.isFull
        ? nil : FileManager.default.contents(atPath: Configuration.stateFile(directory, Int64(base)))
      let state = try StateDelta.decode(
        try file.contents(of: header.deviceState), on: before.map { Array($0) })
      for (path, data) in [
        (Configuration.stateFile(directory, sequence), Data(state)),
        (Configuration.machineFile(directory, sequence), Data(metadata)),
      ] { try data.write(to: URL(fileURLWithPath: path), options: .atomic) }
      return (machine, header.ramBytes)
    }
    guard machine.memoryBytes == Int64(ramBytes) else {
      throw CheckpointError.format("its RAM has another size than its VM's")
    }
    let snapshot =
      base == 0 ? "\(StandbyRecord.snapshotPrefix(replica))\(sequence)" : known?.snapshot ?? ""
    let name = request.name
    if base != 0, await !isApplicable(replica) {
      rename(path, Configuration.queuedFile(directory, sequence))
      standbys[replica]?.queue.append(
        .init(sequence: sequence, digest: Self.hexadecimal(digest), takenUnix: machine.takenUnix))
      await saveStandby(replica)
      settleLater(replica)
      return false
    }
    do {
      try await receive(path, snapshot: snapshot, parent: name, in: directory)
    } catch let error as MemtapError {
      throw ForkError.wrap("cannot apply checkpoint \(sequence) of \(name)", error)
    }
    var record =
      known ?? StandbyRecord(replica: replica, name: request.name, home: request.home)
    record.snapshot = snapshot
    record.sequence = sequence
    record.digest = Self.hexadecimal(digest)
    record.checkpointUnix = machine.takenUnix
    record.memoryBytes = machine.memoryBytes
    record.queue = []
    standbys[replica] = record
    await saveStandby(replica)
    if let old = known?.snapshot, !old.isEmpty, old != snapshot { await giveUp(old) }
    try await finishDisks(of: record)
    Self.sweep(directory, keeping: [sequence], disksOf: snapshot)
    // One VM has one standby here: the last one begun.
    for (other, standby) in standbys
    where other != replica && standby.name == name && standby.home == request.home
      && standby.state == .standby
    {
      await dropStandby(other)
    }
    return true
  }

  /// Gives the pager a checkpoint that was verified. On return, and after a daemon's death in the middle of it, its disks
  /// follow with `finishDisks`.
  func receive(_ path: String, snapshot: String, parent: String, in directory: String) async throws {
    try await workers.run {
      let file = try CheckpointFile.open(path)
      try Self.prepareDisks(of: file, try file.header(), at: path, in: directory, snapshot: snapshot)
    }
    _ = try await memtap.run { try $0.receive(standby: snapshot, parent: parent, path: path) }
  }

  /// Files of other checkpoints than these go, and disks of other snapshots.
  static func sweep(_ directory: String, keeping sequences: [Int64], disksOf snapshot: String) {
    let kept = sequences.flatMap { ["state-\($0)", "machine-\($0)", "queued-\($0)", "redo-\($0)"] }
    for file in (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
    where !kept.contains(file) && !(file.hasPrefix("disk-") && file.hasSuffix("-" + snapshot)) {
      unlink("\(directory)/\(file)")
    }
  }

  func saveStandby(_ replica: String) async {
    guard let record = standbys[replica] else { return }
    await persist("the standby of \(record.name)") { try await self.store.save(record) }
  }

  /// Whatever there is of it goes, but what a VM that was made of it uses.
  func dropStandby(_ replica: String) async {
    guard let record = standbys.removeValue(forKey: replica) else { return }
    await persist("the end of a standby") { try await self.store.delete(StandbyRecord.self, key: replica) }
    if !record.snapshot.isEmpty { await giveUp(record.snapshot) }
    configuration.removeReplicaDirectory(configuration.standbyDirectory(replica))
  }
}
