import CloneDisk
import Foundation
import GuestMemory
import LinuxSystem
import Replicator

/// Disks in checkpoints. At home the layers that have been written since the last one are what goes; the standby's are raw
/// files, changed in place when its pages are.
extension ForkService {
  // MARK: At home

  /// What no layer may be merged into or away from: the next checkpoint begins above them.
  var layersInReplication: Set<String> {
    let boundaries = replications.values.flatMap { ($0.baseDisks ?? []) + ($0.pending?.disks ?? []) }
    return Set(boundaries).union(layersInCheckpoint.values.joined())
  }

  /// The layers above those that were the uppermost; nil: those are not below them any more.
  static func changes(of snapshot: SnapshotRecord, since tops: [String]?) -> [DiskPoint]? {
    let (points, tops) = (snapshot.disks ?? [], tops ?? [])
    guard points.count == tops.count else { return nil }
    var changes = points
    for (index, top) in tops.enumerated() {
      guard let end = points[index].layers.firstIndex(where: { $0.id == top }) else { return nil }
      changes[index].layers = Array(points[index].layers[..<end])
    }
    return changes
  }

  /// Appends the disks' part to a checkpoint's file. Blocks.
  static func write(
    _ points: [DiskPoint], of store: LayerStore, to path: String, scratch: String?
  ) throws -> CheckpointHeader.Part {
    let disks = DisksWriter(try PartWriter(appendingTo: path))
    for point in points {
      let layers = try LayerReader(point.layers, of: point.virtualBytes, in: store, scratch: scratch)
      try disks.add(diskBytes: point.virtualBytes) { pages in
        try layers.read(blockBytes: Page.bytes) { first, bytes in
          for (index, at) in stride(from: 0, to: bytes.count, by: Page.bytes).enumerated() {
            try pages.replace(first + index, with: bytes.baseAddress! + at)
          }
        } zeros: { range in
          // Of a full one all that is not named is zeros.
          if scratch == nil { pages.addZeros(range) }
        }
      }
    }
    return try disks.finish()
  }

  // MARK: At the standby

  /// The standby's disks, in the VM's order.
  private func diskPaths(of standby: StandbyRecord, _ machine: ReplicaMachine) -> [String] {
    let directory = configuration.standbyDirectory(standby.replica)
    return (machine.diskBytes ?? []).indices.map {
      Configuration.diskFile(directory, standby.snapshot, $0)
    }
  }

  /// Whether layers stand on a standby's disks.
  func disksAreShared(_ standby: StandbyRecord) -> Bool {
    let directory = configuration.standbyDirectory(standby.replica)
    let files = (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
    return files.contains { $0.hasPrefix("disk-") && LayerStore.isShared("\(directory)/\($0)") }
  }

  /// Before the pager is given a checkpoint that was verified: what its disks need is there when this returns, and they are
  /// as they were. Those of a full one are made. Blocks.
  static func prepareDisks(
    of file: CheckpointFile, _ header: CheckpointHeader, at path: String, in directory: String,
    snapshot: String
  ) throws {
    let disks = try file.disks(header)
    if disks.isEmpty { return }
    do {
      if header.isFull {
        for (index, disk) in disks.enumerated() {
          let path = Configuration.diskFile(directory, snapshot, index)
          unlink(path)
          try disk.create(path)
        }
        return
      }
      for (index, disk) in disks.enumerated() {
        try disk.reserve(in: Configuration.diskFile(directory, snapshot, index))
      }
    } catch let error as SystemError {
      switch error.errno {
      case ENOSPC, EDQUOT:
        throw ForkError(.refused, "there is no room for its disks in \(directory). Free some.")
      // The next one will be full.
      case ENOENT: throw CheckpointError.sizes("the disk that it changes is not here")
      default: throw error
      }
    }
    let redo = Configuration.redoFile(directory, Int64(header.sequence))
    unlink(redo)
    try systemCall("link", subject: redo) { link(path, redo) }
  }

  /// The disks become what the pages are. Nothing, if they are that. If what they were to become was damaged meanwhile, the
  /// standby is given up.
  func finishDisks(of standby: StandbyRecord) async throws {
    let directory = configuration.standbyDirectory(standby.replica)
    let redo = Configuration.redoFile(directory, standby.sequence)
    guard FileManager.default.fileExists(atPath: redo) else { return }
    do {
      try await workers.run {
        let file = try CheckpointFile.open(redo)
        let header = try file.verify()
        if Self.hexadecimal(header.digest) == standby.digest {
          for (index, disk) in try file.disks(header).enumerated() {
            try disk.apply(to: Configuration.diskFile(directory, standby.snapshot, index))
          }
        }
        unlink(redo)
      }
    } catch let error as CheckpointError {
      await dropStandby(standby.replica)
      throw ForkError(
        .failed, "the standby of \(standby.name) is given up, for its disks could not be written: \(error).")
    }
  }

  /// The standby's disks as layers, which do not change until `removeLayers`, or whoever uses them has gone.
  func shareDisks(of standby: StandbyRecord, _ machine: ReplicaMachine) async throws -> [DiskPoint]? {
    guard let sizes = machine.diskBytes, !sizes.isEmpty else { return nil }
    let (paths, store, host) = (diskPaths(of: standby, machine), disks.store, await cluster.host)
    return try await workers.run {
      try zip(paths, sizes).map { path, bytes in
        DiskPoint(virtualBytes: bytes, layers: [try store.share(path, host: host)])
      }
    }
  }

  /// The disks of a VM that goes on from a standby.
  func makeDisks(of standby: StandbyRecord, _ machine: ReplicaMachine, what: String) async throws -> [VMDisk]?
  {
    guard let points = try await shareDisks(of: standby, machine) else { return nil }
    let files = try await emptyFiles(points.map(\.virtualBytes), for: what)
    return zip(points, files).map {
      VMDisk(virtualBytes: $0.virtualBytes, active: $1, export: DiskLayer.newID(), base: $0.layers)
    }
  }

  /// Layers that `shareDisks` made go at once if nobody reads them, else when nobody does.
  func removeLayers(_ points: [DiskPoint]?) async {
    let ids = Set((points ?? []).flatMap(\.layers).map(\.id)).subtracting(layersShared(besides: ""))
    if ids.isEmpty { return }
    let (disks, open) = (disks, layersRead)
    _ = try? await workers.run {
      disks.daemon.close(allBut: open)
      for id in ids { disks.store.remove(id) }
    }
  }
}
