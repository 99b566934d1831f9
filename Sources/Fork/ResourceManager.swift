import Foundation
import LinuxSystem

/// Decides how many clones a ticket gets and where (SnowFlock's plug-in for EGO or Sun Grid Engine, section
/// "Snow Flock Implementation" of the article).
protocol ResourceManager: Sendable {
  /// The placement of up to `count` clones; fewer if resources are short. Throws `.refused` with the sentence for
  /// the user if not one fits.
  func place(count: Int, of shape: CloneShape, load: HostLoad) throws(ForkError) -> Int
}

/// What one clone may come to need.
struct CloneShape: Sendable {
  var parent: String
  var memoryBytes: UInt64
  var vcpus: Int
}

/// What this host has promised and not yet given.
struct HostLoad: Sendable {
  var hostName: String
  /// Bytes reserved for slots and clones that run.
  var reservedBytes: UInt64
  var vcpusInUse: Int
}

/// Counts memory and CPUs of this host.
///
/// A clone shares its snapshot's pages with its siblings and holds for itself only what it writes, so a quarter
/// of its RAM is reserved, and what QEMU needs itself; CPUs are overcommitted as on any host of VMs.
struct EmbeddedResourceManager: ResourceManager {
  static let qemuBytes: UInt64 = 48 << 20
  static let memoryOvercommit: UInt64 = 4
  static let cpuOvercommit = 64

  var memoryAvailable: @Sendable () -> UInt64 = { HostMemory.read().available }
  var cpuCount: @Sendable () -> Int = { ProcessInfo.processInfo.activeProcessorCount }

  static func reservation(memoryBytes: UInt64) -> UInt64 { memoryBytes / memoryOvercommit + qemuBytes }

  func place(count: Int, of shape: CloneShape, load: HostLoad) throws(ForkError) -> Int {
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
struct HostMemory: Sendable {
  var total: UInt64
  var available: UInt64

  static func read() -> HostMemory {
    let text = (try? ProcFile.text("/proc/meminfo")) ?? ""
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
func byteText(_ bytes: UInt64) -> String {
  let units: [(String, UInt64)] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)]
  for (unit, size) in units where bytes >= size {
    let value = Double(bytes) / Double(size)
    return value == value.rounded()
      ? "\(Int(value)) \(unit)" : "\((value * 10).rounded() / 10) \(unit)"
  }
  return "\(bytes) bytes"
}
