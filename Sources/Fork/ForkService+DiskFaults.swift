import CloneDisk
import Foundation
import Hypervisor

/// What the operator is told when a disk fails. The guest has been told of an I/O error by then.
extension ForkService {
  /// For `ps` and the log: `disk 1: no space left on device`. Disks have the numbers of `--disk`, from 1 on; the root disk
  /// of an image comes first.
  func diskFailed(_ name: String, _ fault: DiskFault) async {
    guard let known = guests[name]?.record, !known.state.isOver else { return }
    let index = await indexOfDisk(of: known, atNode: fault.node)
    let disk = index.map { "disk \($0 + 1)" } ?? "a disk"
    let cause = fault.reason.prefix(1).lowercased() + fault.reason.dropFirst()
    log.warning(
      "\(name) got an I/O error: \(disk) could not be \(fault.isWrite ? "written" : "read"): \(cause). \(Self.remedy(fault, in: disks.store.directory))"
    )
    guard guests[name]?.record.uuid == known.uuid, guests[name]?.record.state.isOver == false else { return }
    guests[name]?.record.reason = "\(disk): \(cause)"
    await save(name)
  }

  private func indexOfDisk(of record: VMRecord, atNode node: String) async -> Int? {
    // After a fork the nodes have our names, and the VM may have gone over to the next meanwhile.
    let files = (record.disks ?? []).map { [$0.active, $0.next].compactMap(\.self) + $0.frozen.map(\.id) }
    if let index = files.firstIndex(where: { $0.contains { "d" + $0 == node } }) { return index }
    let name = record.name
    return try? await withHypervisor { try $0.disk(of: name, atNode: node) }
  }

  private static func remedy(_ fault: DiskFault, in directory: String) -> String {
    if fault.reason == String(cString: strerror(ENOSPC)) { return "Free some of \(directory)." }
    return fault.isWrite
      ? "See the host's own disk."
      : "See storage-daemon.log, and of a disk from another host whether that host answers."
  }

  static func noRoom(_ what: String, _ store: LayerStore, _ host: String) -> ForkError {
    ForkError(
      .refused,
      "\(what): there is no room for its disk in \(store.directory) of host \(host). Free some, or name another host with --host."
    )
  }
}
