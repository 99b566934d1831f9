import Foundation
import LinuxSystem

/// Decides how many clones a ticket gets and where (SnowFlock's plug-in for EGO or Sun Grid Engine, section
/// "Snow Flock Implementation" of the article).
package protocol ResourceManager: Sendable {
  /// The placement of up to `count` clones; fewer if resources are short. Throws `.refused` with the sentence for
  /// the user if not one fits.
  func place(count: Int, of shape: CloneShape, load: HostLoad) throws(ForkError) -> Int
}

/// What one clone may come to need.
package struct CloneShape: Sendable {
  var parent: String
  var memoryBytes: UInt64
  var vcpus: Int

  package init(parent: String, memoryBytes: UInt64, vcpus: Int) {
    self.parent = parent
    self.memoryBytes = memoryBytes
    self.vcpus = vcpus
  }
}

/// What this host has promised and not yet given.
package struct HostLoad: Sendable {
  var hostName: String
  /// Bytes reserved for slots and clones that run.
  var reservedBytes: UInt64
  var vcpusInUse: Int

  package init(hostName: String, reservedBytes: UInt64, vcpusInUse: Int) {
    self.hostName = hostName
    self.reservedBytes = reservedBytes
    self.vcpusInUse = vcpusInUse
  }
}

/// Counts memory and CPUs of this host.
///
/// A clone shares its snapshot's pages with its siblings and holds for itself only what it writes, so a quarter
/// of its RAM is reserved, and what QEMU needs itself; CPUs are overcommitted as on any host of VMs.
package struct EmbeddedResourceManager: ResourceManager {
  static let qemuBytes: UInt64 = 48 << 20
  static let memoryOvercommit: UInt64 = 4
  static let cpuOvercommit = 64

  private let memoryAvailable: @Sendable () -> UInt64
  private let cpuCount: @Sendable () -> Int

  package init(
    memoryAvailable: @escaping @Sendable () -> UInt64 = { HostMemory.read().available },
    cpuCount: @escaping @Sendable () -> Int = { ProcessInfo.processInfo.activeProcessorCount }
  ) {
    self.memoryAvailable = memoryAvailable
    self.cpuCount = cpuCount
  }

  package static func reservation(memoryBytes: UInt64) -> UInt64 {
    memoryBytes / memoryOvercommit + qemuBytes
  }

  package func place(count: Int, of shape: CloneShape, load: HostLoad) throws(ForkError) -> Int {
    let need = Self.reservation(memoryBytes: shape.memoryBytes)
    let available = memoryAvailable()
    let free = available > load.reservedBytes ? available - load.reservedBytes : 0
    let byMemory = Int(free / need)
    let cpuLimit = cpuCount() * Self.cpuOvercommit
    let byCPU = max(0, cpuLimit - load.vcpusInUse) / max(1, shape.vcpus)
    let granted = min(count, byMemory, byCPU)
    if granted > 0 { return granted }
    if byMemory == 0 {
      throw ForkError(
        .refused,
        "cannot fork \(shape.parent): host \(load.hostName) has \(byteText(free)) free and a clone needs "
          + "\(byteText(need)). Free memory there or name another host with --host.")
    }
    throw ForkError(
      .refused,
      "cannot fork \(shape.parent): host \(load.hostName) runs \(load.vcpusInUse) virtual CPUs and its limit is "
        + "\(cpuLimit). End clones first.")
  }
}

/// /proc/meminfo, in bytes.
package struct HostMemory: Sendable {
  var total: UInt64
  package var available: UInt64

  package static func read() -> HostMemory {
    let text = (try? readTextFile("/proc/meminfo")) ?? ""
    func field(_ name: String) -> UInt64 {
      for line in text.split(separator: "\n") where line.hasPrefix(name + ":") {
        let words = line.split(separator: " ")
        if words.count > 1, let kibibytes = UInt64(words[1]) { return kibibytes << 10 }
      }
      return 0
    }
    return HostMemory(total: field("MemTotal"), available: field("MemAvailable"))
  }
}

/// `1.2 GiB`, `256 MiB`.
package func byteText(_ bytes: UInt64) -> String {
  let units: [(String, UInt64)] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)]
  for (unit, size) in units where bytes >= size {
    let value = Double(bytes) / Double(size)
    return value == value.rounded()
      ? "\(Int(value)) \(unit)" : "\((value * 10).rounded() / 10) \(unit)"
  }
  return "\(bytes) bytes"
}
