import Foundation
import Glibc
import LinuxSystem

/// What a process that was killed while it started machines has left.
///
/// libvirt 9 must not see it: of a domain that was just being started, its reconnect keeps the job for ever, and every
/// later call for that domain waits 30 s and fails ("cannot acquire state change lock").
extension EmbeddedRoot {
  /// Ends every QEMU with RAM below `memoryDirectory` whose machine `isWanted` denies, and removes libvirt's files of
  /// it. To be called before libvirt is opened.
  func removeLeftovers(memoryDirectory: String, isWanted: (_ name: String) -> Bool) {
    for pid in Self.processes() {
      guard let name = Self.machine(of: pid, memoryDirectory: memoryDirectory), !isWanted(name) else {
        continue
      }
      kill(pid, SIGKILL)
    }
    let state = "\(path)/run/qemu"
    for file in Self.entries(of: state)
    where file.hasSuffix(".xml") || file.hasSuffix(".pid") && file != "driver.pid" {
      if !isWanted(String(file.dropLast(4))) { unlink("\(state)/\(file)") }
    }
    for directory in [
      "\(path)/lib/qemu", "\(path)/lib/qemu/channel/target", "\(memoryDirectory)/libvirt/qemu",
    ] {
      for entry in Self.entries(of: directory) {
        guard let name = Self.machine(ofDirectory: entry), !isWanted(name) else { continue }
        try? FileManager.default.removeItem(atPath: "\(directory)/\(entry)")
      }
    }
  }

  /// "dev.1" of "domain-7-dev.1" and of "qemu-embed-0838fba0-7-dev.1"
  private static func machine(ofDirectory entry: String) -> String? {
    (entry.wholeMatch(of: /(?:domain|.*-embed-[0-9a-f]+)-[0-9]+-(.+)/)?.output.1).map(String.init)
  }

  /// The name of the machine that this process runs, if it is a QEMU of ours.
  private static func machine(of pid: pid_t, memoryDirectory: String) -> String? {
    guard ProcessFiles.firstLine("/proc/\(pid)/comm").hasPrefix("qemu") else { return nil }
    let words = ProcessFiles.text("/proc/\(pid)/cmdline", maximumBytes: 16 << 10).split(separator: "\0")
    guard words.contains(where: { $0.contains("\"\(memoryDirectory)/") }) else { return nil }
    let guest = words.first { $0.hasPrefix("guest=") }?.dropFirst(6)
    return guest.map { String($0.prefix { $0 != "," }) }
  }

  private static func processes() -> [pid_t] { entries(of: "/proc").compactMap { pid_t($0) } }

  private static func entries(of directory: String) -> [String] {
    (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
  }
}
