import Descriptor
import Foundation
import LinuxSystem
import Memtap

/// A fork point written down, and read again.
extension ForkService {
  /// Writes the descriptor and records the snapshot. Answers when it began and ended.
  func describe(_ point: ForkPoint, _ log: PhaseLog) async throws -> ClosedRange<UInt64> {
    let id = point.snapshot.id
    let begin = log.elapsedMicroseconds
    let bytes = try await writeDescriptor(
      point.snapshot, deviceState: point.deviceState, layout: point.layout)
    guard snapshots[id] != nil else {
      // Its clones have come and gone meanwhile.
      try? FileManager.default.removeItem(atPath: configuration.snapshotDirectory(id))
      throw CancellationError()
    }
    snapshots[id]?.descriptorBytes = Int64(bytes)
    if let record = snapshots[id] {
      await persist("snapshot \(id)") { try await self.store.save(record) }
    }
    return begin...log.elapsedMicroseconds
  }

  private func writeDescriptor(
    _ snapshot: SnapshotRecord, deviceState: OwnedDescriptor, layout: SnapshotLayout
  ) async throws -> Int {
    let state = try await workers.run { try AnonymousFile.contents(deviceState) }
    return try await writeDescriptor(snapshot, deviceState: state, layout: layout)
  }

  func writeDescriptor(
    _ snapshot: SnapshotRecord, deviceState: [UInt8], layout: SnapshotLayout
  ) async throws -> Int {
    let compatibility = hypervisor.compatibility
    let directory = configuration.snapshotDirectory(snapshot.id)
    let path = configuration.descriptorPath(snapshot.id)
    return try await workers.run {
      let descriptor = VMDescriptor(
        snapshot: snapshot.id, parent: snapshot.parent, image: snapshot.image,
        createdMicroseconds: Self.wallClockNanoseconds() / 1000, ramBytes: UInt64(snapshot.memoryBytes),
        vcpus: UInt32(snapshot.vcpus), compatibility: compatibility, kernelCommandLine: snapshot.commandLine,
        disks: (snapshot.disks ?? []).map(\.described), deviceState: deviceState,
        existingPages: layout.existing.map { .init(first: UInt64($0.first), count: UInt64($0.count)) })
      let bytes = try descriptor.encode()
      try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
      let file = try OwnedDescriptor.open(path + ".new", O_WRONLY | O_CREAT | O_TRUNC, mode: 0o600)
      try bytes.withUnsafeBytes { try file.writeFully($0) }
      try systemCall("rename", subject: path) { rename(path + ".new", path) }
      return bytes.count
    }
  }

  /// The device state of a verified descriptor, as a file for QEMU.
  func readDescriptor(_ snapshot: SnapshotRecord) async throws -> OwnedDescriptor {
    if let lost = snapshots[snapshot.id]?.lost {
      throw ForkError(.refused, "cannot clone \(snapshot.id): \(lost). Make another snapshot.")
    }
    let path = configuration.descriptorPath(snapshot.id)
    let compatibility = hypervisor.compatibility
    return try await workers.run {
      let descriptor = try Self.verifiedDescriptor(path, snapshot: snapshot, compatibility: compatibility)
      return try AnonymousFile.create(name: "device-state", holding: descriptor.deviceState)
    }
  }

  /// Checks all that can be checked before anything is started in the descriptor's name.
  static func verifiedDescriptor(
    _ path: String, snapshot: SnapshotRecord, compatibility: String
  ) throws -> VMDescriptor {
    let what = "cannot clone \(snapshot.id)"
    guard let data = FileManager.default.contents(atPath: path) else {
      throw ForkError(.failed, "\(what): its descriptor \(path) is missing. Make another snapshot.")
    }
    do {
      let descriptor = try data.withUnsafeBytes { try VMDescriptor.decode($0) }
      try descriptor.requireCompatible(with: compatibility)
      guard descriptor.snapshot == snapshot.id, descriptor.ramBytes == UInt64(snapshot.memoryBytes),
        descriptor.vcpus == UInt32(snapshot.vcpus)
      else {
        throw ForkError(
          .failed, "\(what): the descriptor \(path) is of another VM or size. Make another snapshot.")
      }
      return descriptor
    } catch let error as DescriptorError {
      throw ForkError(.failed, "\(what): \(error) (\(path)). Make another snapshot.")
    }
  }
}
