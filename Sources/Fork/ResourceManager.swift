import Foundation
import LinuxSystem

/// Decides how many clones a ticket gets and where (SnowFlock's plug-in for EGO or Sun Grid Engine, section
/// "Snow Flock Implementation" of the article).
package protocol ResourceManager: Sendable {
  /// The placement of up to `count` clones over the hosts; fewer if resources are short. Throws `.refused` with the
  /// sentence for the user if not one fits.
  func place(count: Int, of shape: CloneShape, on hosts: [HostLoad]) throws(ForkError) -> [Placement]
}

/// So many clones on that host.
package struct Placement: Sendable, Equatable {
  package var host: String
  package var count: Int

  package init(host: String, count: Int) {
    self.host = host
    self.count = count
  }
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

/// What a host has, and what it has promised and not yet given.
package struct HostLoad: Sendable {
  var hostName: String
  var memoryFreeBytes: UInt64
  var cpus: Int
  /// Promised to slots.
  var reservedBytes: UInt64
  var vcpusInUse: Int

  package init(
    hostName: String, memoryFreeBytes: UInt64, cpus: Int, reservedBytes: UInt64, vcpusInUse: Int
  ) {
    self.hostName = hostName
    self.memoryFreeBytes = memoryFreeBytes
    self.cpus = cpus
    self.reservedBytes = reservedBytes
    self.vcpusInUse = vcpusInUse
  }
}

/// Counts memory and CPUs, and spreads clones evenly: each goes to the host that has the most room left for its like.
///
/// A clone shares its snapshot's pages with its siblings and holds for itself only what it writes, so a quarter
/// of its RAM is reserved, and what QEMU needs itself; CPUs are overcommitted as on any host of VMs.
package struct EmbeddedResourceManager: ResourceManager {
  static let qemuBytes: UInt64 = 48 << 20
  static let memoryOvercommit: UInt64 = 4
  static let cpuOvercommit = 64

  package init() {}

  package static func reservation(memoryBytes: UInt64) -> UInt64 {
    memoryBytes / memoryOvercommit + qemuBytes
  }

  package func place(
    count: Int, of shape: CloneShape, on hosts: [HostLoad]
  ) throws(ForkError) -> [Placement] {
    let need = Self.reservation(memoryBytes: shape.memoryBytes)
    let room = hosts.map { Self.room(on: $0, for: shape, need: need) }
    var placed = [Int](repeating: 0, count: hosts.count)
    for _ in 0..<count {
      // The one that would then have given the least share of its room; of equals the first.
      guard
        let best = hosts.indices.filter({ placed[$0] < room[$0] }).min(by: { a, b in
          (placed[a] + 1) * room[b] < (placed[b] + 1) * room[a]
        })
      else { break }
      placed[best] += 1
    }
    let placements = hosts.indices.filter { placed[$0] > 0 }.map {
      Placement(host: hosts[$0].hostName, count: placed[$0])
    }
    if !placements.isEmpty { return placements }
    throw refusal(shape, need, hosts)
  }

  private static func free(_ host: HostLoad) -> UInt64 {
    host.memoryFreeBytes > host.reservedBytes ? host.memoryFreeBytes - host.reservedBytes : 0
  }

  private static func room(on host: HostLoad, for shape: CloneShape, need: UInt64) -> Int {
    let byCPU = max(0, host.cpus * cpuOvercommit - host.vcpusInUse) / max(1, shape.vcpus)
    return min(Int(free(host) / need), byCPU)
  }

  /// Says it of the host that came nearest.
  private func refusal(_ shape: CloneShape, _ need: UInt64, _ hosts: [HostLoad]) -> ForkError {
    let what = "cannot fork \(shape.parent)"
    guard let host = hosts.max(by: { Self.free($0) < Self.free($1) }) else {
      return ForkError(.refused, "\(what): no host is up. See sfctl host ls.")
    }
    if Self.free(host) < need {
      return ForkError(
        .refused,
        "\(what): host \(host.hostName) has \(byteText(Self.free(host))) free and a clone needs "
          + "\(byteText(need)). Free memory there or name another host with --host.")
    }
    return ForkError(
      .refused,
      "\(what): host \(host.hostName) runs \(host.vcpusInUse) virtual CPUs and its limit is "
        + "\(host.cpus * Self.cpuOvercommit). End clones first.")
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
