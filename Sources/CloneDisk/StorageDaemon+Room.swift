import Foundation
import LinuxSystem

/// What a host does of other hosts' layers when it has no room to keep them: it reads them over the network, each time
/// anew. QEMU's NBD server hangs up on a client whose read can not be kept, and the client asks again without end.
extension StorageDaemon {
  /// To be called again and again with the bytes that are free for disks. Answers whether it has changed its ways, and to
  /// which.
  public func tend(freeBytes: UInt64) throws -> Bool? {
    try state.withLock { state in
      let isKeeping = state.isKeeping ? freeBytes >= Self.leastRoom : freeBytes >= Self.enoughRoom
      guard isKeeping != state.isKeeping else { return nil }
      state.isKeeping = isKeeping
      guard !state.exports.isEmpty else { return isKeeping }
      try again(&state) { state, monitor in try passOrKeep(&state, monitor) }
      return isKeeping
    }
  }

  private static let leastRoom: UInt64 = 1 << 20
  private static let enoughRoom: UInt64 = 16 << 20

  /// Puts what copies, or what it copies to, under each layer of another host. Both read the same.
  func passOrKeep(_ state: inout State, _ monitor: Monitor) throws {
    for export in state.exports.values {
      for (index, layer) in export.layers.enumerated()
      where layer.host != state.ownHost && state.open.contains(layer.id)
        && state.passing.contains(layer.id) == state.isKeeping
      {
        let options = Self.options(
          of: layer, file: .string((state.isKeeping ? "r" : "c") + layer.id),
          over: export.layers.dropFirst(index + 1).first)
        try monitor.run("blockdev-reopen", ["options": [options]])
        if state.isKeeping { state.passing.remove(layer.id) } else { state.passing.insert(layer.id) }
      }
    }
  }
}

extension LayerStore {
  /// Of the file system that disks are on.
  public var freeBytes: UInt64 {
    var status = statvfs()
    guard statvfs(directory, &status) == 0 else { return .max }
    return UInt64(status.f_bavail) * UInt64(status.f_frsize)
  }
}
