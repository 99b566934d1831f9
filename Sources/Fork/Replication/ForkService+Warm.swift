import Foundation
import LinuxSystem
import Memtap
import Replicator
import Wire

/// A fork to a host that has a standby of the VM: what was not written since its last checkpoint is there already.
extension ForkService {
  /// With more runs than this a snapshot travels as if there were no standby.
  private static let runsMax = 60_000

  /// What the host is told; nil: it has no standby, or too much of it differs.
  func warmth(
    of snapshot: SnapshotRecord, on host: String
  ) async -> Snowfork_V1_DeliverSnapshotRequest.Warm? {
    guard let record = replications[snapshot.parent], record.host == host, let base = record.base else {
      return nil
    }
    let id = snapshot.id
    guard let layout = try? await memtap.run({ try $0.written(id, since: base) }),
      layout.existing.count <= Self.runsMax
    else { return nil }
    return .with {
      $0.replica = Data(bytes(ofHexadecimal: record.replica))
      $0.sequence = UInt64(record.sequence)
      $0.digest = Data(bytes(ofHexadecimal: record.digest))
      var runs: [UInt8] = []
      for number in layout.existing.flatMap({ [$0.first, $0.count] }) {
        withUnsafeBytes(of: number.littleEndian) { runs.append(contentsOf: $0) }
      }
      $0.written = Data(runs)
    }
  }

  /// The standby that the pager is to take pages from, if it is what the home thinks; the pager looks once more.
  func warmth(_ header: Snowfork_V1_DeliverSnapshotRequest.Header) -> RemoteSnapshot.Warm? {
    guard header.hasWarm, let standby = standbys[Self.hexadecimal(header.warm.replica)],
      standby.home == header.home, standby.name == header.parent, !standby.snapshot.isEmpty,
      standby.sequence == Int64(header.warm.sequence),
      standby.digest == Self.hexadecimal(header.warm.digest)
    else { return nil }
    return .init(
      standby: standby.snapshot,
      mark: StandbyMark(sequence: header.warm.sequence, digest: Array(header.warm.digest)),
      written: Array(header.warm.written))
  }

  /// A checkpoint that is on its way there has what this fork would send again: it is waited for, but not long.
  func settleCheckpoint(of name: String, on host: String) async {
    let deadline = ContinuousClock.now + .seconds(3)
    while replications[name]?.host == host, replications[name]?.pending != nil,
      turns.isTaken(Self.replicationKey(name)), ContinuousClock.now < deadline
    {
      try? await Task.sleep(for: .milliseconds(5))
    }
  }

  /// The descriptor as a change of the device state that the standby's host has, 1 KB instead of 400. Nil: the way there is
  /// so fast that it is not worth the 20 ms which that takes, or not known.
  func change(
    _ descriptor: Data, on warm: Snowfork_V1_DeliverSnapshotRequest.Warm, ofParent name: String
  ) async -> Data? {
    guard let speed = replications[name]?.linkBytesPerSecond, 1..<Self.slowBytesPerSecond ~= speed else {
      return nil
    }
    let directory = configuration.outgoingDirectory(Self.hexadecimal(warm.replica))
    let path = Configuration.stateFile(directory, Int64(warm.sequence))
    return try? await workers.run {
      guard let state = FileManager.default.contents(atPath: path) else { return nil }
      return Data(StateDelta.encode(Array(descriptor), on: Array(state)))
    }
  }

  private static let slowBytesPerSecond: Int64 = 20_000_000

  /// The descriptor of which that is a change.
  func descriptor(
    of change: Data, _ header: Snowfork_V1_DeliverSnapshotRequest.Header
  ) async throws -> Data {
    guard let warm = warmth(header) else {
      throw ForkError(.refused, "the standby here is not of checkpoint \(header.warm.sequence).")
    }
    let directory = configuration.standbyDirectory(Self.hexadecimal(header.warm.replica))
    let path = Configuration.stateFile(directory, Int64(warm.mark.sequence))
    return try await workers.run {
      guard let state = FileManager.default.contents(atPath: path) else {
        throw ForkError(.refused, "the standby's device state is missing.")
      }
      do { return Data(try StateDelta.decode(Array(change), on: Array(state))) } catch {
        throw ForkError(.refused, "\(error)")
      }
    }
  }
}
