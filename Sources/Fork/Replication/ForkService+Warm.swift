import Foundation
import Memtap
import Wire

/// A fork to a host that has a standby of the VM: what was not written since its last checkpoint is there already.
extension ForkService {
  /// With more runs than this a snapshot travels as if there were no standby.
  private static let runsMax = 60_000

  /// What the host is told; nil: it has no standby, or one that is not of an earlier moment.
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
}
