import CloneDisk
import Foundation
import GRPCCore
import LinuxSystem
import Memtap
import ReplicationPolicy
import Replicator
import Wire

/// A checkpoint on the home: a fork point, what differs of it, and its way to the standby's host.
extension ForkService {
  struct CheckpointOutcome: Sendable {
    var name: String
    var host: String
    var sequence: Int64
    var pauseMicroseconds: UInt64 = 0
    var dirtyPages: UInt64 = 0
    /// Of what goes, those of disks.
    var diskBytes: UInt64 = 0
    var bytesSent: UInt64 = 0
    var totalMicroseconds: UInt64 = 0
  }

  /// On return the standby is what the VM was at a moment since the call. On failure it is what it was before, and a
  /// checkpoint that could not be sent whole is sent on when its host answers.
  func takeCheckpoint(
    of name: String, for purpose: Policy.Purpose = .background
  ) async throws -> CheckpointOutcome {
    let begin = monotonicMicroseconds()
    let what = "cannot take a checkpoint of \(name)"
    let turn = Self.replicationKey(name)
    await takeTurn(turn)
    defer { turns.leave(turn) }
    try requireReplicable(name, what)
    guard let record = replications[name] else {
      throw ForkError(
        .refused, "\(what): it is not replicated. Begin with sfctl replicate \(name) --to HOST.")
    }
    try requireNotReplaced(record, what)
    if purpose == .onDemand { try await permitCheckpoint(of: name, what) }
    let replica = record.replica
    do {
      if replications[name]?.pending != nil { _ = try await transfer(name) }
      // The second is a full one: what the first would have changed is not there any more.
      for _ in 0..<2 {
        var outcome = try await makeWhole(name)
        guard let sent = try await transfer(name) else { continue }
        outcome.bytesSent = sent
        outcome.totalMicroseconds = monotonicMicroseconds() - begin
        return outcome
      }
      throw ForkError(.failed, "\(what): its standby took neither a change nor a full one. Try again.")
    } catch {
      if let error = error as? RPCError, !Self.isInterruption(error) {
        // It was refused, and would be again.
        await dropPending(of: name, base: false)
      }
      let error = Self.explainCheckpoint(error, what, host: replications[name]?.host ?? "")
      if replications[name]?.isReplaced == false {
        replications[name]?.reason = error.message
        await saveReplication(name)
      }
      if replications[name]?.replica != replica {
        // It was ended in the middle of this.
        configuration.removeReplicaDirectory(configuration.outgoingDirectory(replica))
      }
      throw error
    }
  }

  /// The host, or the way to it, is not there now.
  private static func isInterruption(_ error: RPCError) -> Bool {
    [.unavailable, .deadlineExceeded, .cancelled, .aborted, .internalError].contains(error.code)
  }

  private static func explainCheckpoint(_ error: any Error, _ what: String, host: String) -> ForkError {
    switch error {
    case let error as RPCError where !isInterruption(error):
      return ForkError(error.code == .failedPrecondition ? .refused : .failed, "\(what): \(error.message)")
    case let error as RPCError:
      return ForkError(
        .failed,
        "\(what): host \(host): \(error.message). It goes on by itself when the host answers; see sfctl replica ls."
      )
    default: return ForkError.wrap(what, error)
    }
  }

  /// Sends what was taken and could not be sent.
  func sendPending(of name: String) async throws {
    let turn = Self.replicationKey(name)
    await takeTurn(turn)
    defer { turns.leave(turn) }
    _ = try await transfer(name)
  }

  // MARK: Making

  /// Without what the last one was made of, all of the VM goes.
  private func makeWhole(_ name: String) async throws -> CheckpointOutcome {
    let isChange = replications[name]?.base != nil
    do { return try await make(name) } catch {
      guard isChange, let record = replications[name], record.base == nil else { throw error }
      return try await make(name)
    }
  }

  /// Freezes the VM and writes the checkpoint down; it is pending then.
  private func make(_ name: String) async throws -> CheckpointOutcome {
    var log = PhaseLog()
    let point = try await freezePoint(
      of: name, id: "c-" + Self.randomHex(8), kept: true, checkpointRequest: 0, surveys: false, log: &log)
    let id = point.snapshot.id
    // It is the replication's, and nobody else's: nothing of it is described or listed.
    snapshots[id] = nil
    let changes = replications[name].flatMap { record in
      record.base == nil ? nil : Self.changes(of: point.snapshot, since: record.baseDisks)
    }
    let isFull = changes == nil
    let disks = changes ?? point.snapshot.disks ?? []
    layersInCheckpoint[name] = Set(disks.flatMap(\.layers).map(\.id))
    defer { layersInCheckpoint[name] = nil }
    guests[name]?.forkPoints?.remove(id)
    guard let record = replications[name], let guest = guests[name]?.record else {
      await release(id)
      throw ForkError(.failed, "its replication was ended meanwhile")
    }
    do {
      let sequence = max(record.takenSequence, record.sequence) + 1
      let machine = ReplicaMachine(
        name: name, image: guest.image, memoryBytes: guest.memoryBytes, vcpus: guest.vcpus,
        commandLine: guest.commandLine, compatibility: hypervisor.compatibility,
        cpuLimitPercent: guest.cpuLimitPercent, takenUnix: Self.unixNow(), network: guest.network,
        nextNumber: guest.network.flatMap { familyNumbers[$0.family.id]?.next },
        diskBytes: point.snapshot.disks?.map(\.virtualBytes), traits: guest.traits)
      let (header, pages) = try await write(
        point, machine, sequence: sequence, record, isFull: isFull, disks: disks)
      guard replications[name]?.replica == record.replica else { throw CancellationError() }
      replications[name]?.takenSequence = sequence
      replications[name]?.pending = .init(
        sequence: sequence, snapshot: id, base: Int64(header.base),
        baseDigest: Self.hexadecimal(header.baseDigest), digest: Self.hexadecimal(header.digest),
        totalBytes: Int64(header.totalBytes), takenUnix: machine.takenUnix,
        disks: point.snapshot.disks?.compactMap(\.layers.first?.id))
      await saveReplication(name)
      return CheckpointOutcome(
        name: name, host: record.host, sequence: sequence,
        pauseMicroseconds: UInt64(point.snapshot.pauseMicroseconds), dirtyPages: UInt64(pages.dirtyPages),
        diskBytes: header.disks.length)
    } catch {
      await release(id)
      if !isFull, let error = error as? MemtapError, error.code != .outOfMemory {
        // The snapshot of the last one was lost: the next is a full one.
        self.log.notice("the next checkpoint of \(name) is a full one: \(error)")
        await dropBase(of: name)
      }
      throw error
    }
  }

  private func write(
    _ point: ForkPoint, _ machine: ReplicaMachine, sequence: Int64, _ record: ReplicationRecord, isFull: Bool,
    disks points: [DiskPoint]
  ) async throws -> (CheckpointHeader, CheckpointPages) {
    let directory = configuration.outgoingDirectory(record.replica)
    let path = Configuration.checkpointFile(directory, sequence)
    let id = point.snapshot.id
    let (client, kernel, deviceState) = (memtap, point.kernel, point.deviceState)
    let metadata = try Array(JSONEncoder().encode(machine))
    let store = disks.store
    let (file, parts) = try await workers.run {
      try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
      let state = try AnonymousFile.contents(deviceState)
      let before =
        isFull
        ? nil
        : FileManager.default.contents(atPath: Configuration.stateFile(directory, record.sequence)).map {
          Array($0)
        }
      let made = try CheckpointFile.create(
        path, metadata: metadata, deviceState: StateDelta.encode(state, on: before))
      try Data(state).write(to: URL(fileURLWithPath: Configuration.stateFile(directory, sequence)))
      let disks = try Self.write(
        points, of: store, to: path, scratch: isFull ? Configuration.scratchFile(directory) : nil)
      return (Held(made.file), [made.metadata, made.deviceState, disks])
    }
    let order = CheckpointOrder(
      snapshot: id, base: isFull ? nil : record.base, path: path, kernel: isFull ? kernel : nil)
    let pages = try await client.run { try $0.checkpoint(order) }
    let header = CheckpointHeader(
      replica: bytes(ofHexadecimal: record.replica), sequence: UInt64(sequence),
      base: isFull ? 0 : UInt64(record.sequence),
      baseDigest: isFull ? CheckpointHeader.noDigest : bytes(ofHexadecimal: record.digest),
      ramBytes: UInt64(machine.memoryBytes), metadata: parts[0], deviceState: parts[1], disks: parts[2],
      pages: .init(offset: pages.offset, length: pages.length, digest: pages.digest))
    try await workers.run { try file.value.seal(header) }
    return (header, pages)
  }

  /// A file that goes from one worker to another, never used by two at once.
  private final class Held: @unchecked Sendable {
    let value: CheckpointFile
    init(_ value: CheckpointFile) { self.value = value }
  }

  // MARK: Sending

  /// Sends the pending checkpoint, from where an earlier try ended. Answers how many bytes went; nil: the standby can
  /// not take it, and the next one will be full. Throws if the host does not answer: it stays pending.
  private func transfer(_ name: String) async throws -> UInt64? {
    guard let record = replications[name], let pending = record.pending else { return 0 }
    let path = Configuration.checkpointFile(
      configuration.outgoingDirectory(record.replica), pending.sequence)
    guard let file = FileHandle(forReadingAtPath: path) else {
      await dropPending(of: name, base: false)
      return nil
    }
    defer { try? file.close() }
    var request = Snowfork_V1_PutCheckpointRequest()
    request.home = await cluster.host
    request.replica = Data(bytes(ofHexadecimal: record.replica))
    request.name = name
    request.sequence = UInt64(pending.sequence)
    request.base = UInt64(pending.base)
    request.baseDigest = Data(bytes(ofHexadecimal: pending.baseDigest))
    request.digest = Data(bytes(ofHexadecimal: pending.digest))
    request.totalBytes = UInt64(pending.totalBytes)
    var (sent, limit) = (UInt64(0), Self.chunkBytesMin)
    let began = monotonicMicroseconds()
    var (measured, measuredTime) = (UInt64(0), UInt64(0))
    while true {
      try file.seek(toOffset: request.offset)
      request.bytes = try file.read(upToCount: limit) ?? Data()
      let isLast = request.offset + UInt64(request.bytes.count) == request.totalBytes
      // With the last byte it is applied there.
      let patience = Duration.seconds(isLast ? 30 + Int(pending.totalBytes >> 24) : 10)
      let begin = monotonicMicroseconds()
      let message = request
      let reply = try await cluster.insist(on: record.host, timeout: patience) { connection, options in
        try await connection.replicas.putCheckpoint(message, options: options)
      }
      guard replications[name]?.pending?.digest == pending.digest else { throw CancellationError() }
      sent += UInt64(request.bytes.count)
      let took = monotonicMicroseconds() - begin
      if !isLast { (measured, measuredTime) = (measured + UInt64(request.bytes.count), measuredTime + took) }
      limit = took < 300_000 ? min(2 * limit, Self.chunkBytesMax) : max(limit / 2, Self.chunkBytesMin / 4)
      switch reply.verdict {
      case .applied, .received:
        noteTransfer(
          of: name, began: began, tookMicroseconds: monotonicMicroseconds() - began, bytes: measured,
          in: measuredTime)
        await acknowledged(name, pending)
        return sent
      case .stale:
        log.notice("the standby of \(name) on \(record.host) is sent all of it: \(reply.reason)")
        await dropPending(of: name, base: true)
        return nil
      case .activated:
        await markReplaced(name)
        throw ForkError(.refused, "its standby runs on host \(record.host): \(reply.reason)")
      case .receiving, .UNRECOGNIZED:
        guard reply.offset < request.totalBytes else {
          throw ForkError(.failed, "host \(record.host) says it has more than there is")
        }
        request.offset = reply.offset
      }
    }
  }

  private static let chunkBytesMin = 256 << 10
  private static let chunkBytesMax = 2 << 20
}
