import Foundation
import Glibc
import Testing

/// A network namespace for each host, and one with the bridge that joins them.
///
/// `remove` takes all of it away; what is left then is a test's failure.
final class TestNetwork {
  private let prefix: String
  private let count: Int

  init(hosts count: Int) throws {
    prefix = "sfm\(getpid())-\(UInt16.random(in: 0 ..< .max))-"
    self.count = count
    do {
      try run("ip netns add \(prefix)b")
      try run("ip -n \(prefix)b link add bridge type bridge")
      try run("ip -n \(prefix)b link set bridge up")
      for host in 0..<count {
        try run("ip netns add \(name(host))")
        try run("ip -n \(name(host)) link add eth0 type veth peer name port\(host) netns \(prefix)b")
        try run("ip -n \(prefix)b link set port\(host) master bridge up")
        try run("ip -n \(name(host)) addr add \(address(host))/24 dev eth0")
        try run("ip -n \(name(host)) link set lo up")
        try run("ip -n \(name(host)) link set eth0 up")
      }
    } catch {
      remove()
      throw error
    }
  }

  func name(_ host: Int) -> String { "\(prefix)\(host)" }
  func address(_ host: Int) -> String { "10.77.0.\(host + 1)" }

  /// From now on `percent` of the datagrams that come to the host are lost; 0: none.
  func lose(_ percent: Int, at host: Int) throws {
    let nft = "ip netns exec \(name(host)) nft"
    _ = try? run("\(nft) delete table ip loss")
    if percent == 0 { return }
    try run("\(nft) add table ip loss")
    try run("\(nft) add chain ip loss input { type filter hook input priority 0 ; }")
    let some = percent < 100 ? "numgen random mod 100 < \(percent) " : ""
    try run("\(nft) add rule ip loss input meta l4proto udp \(some)drop")
  }

  func remove() {
    for name in (0..<count).map(name) + ["\(prefix)b"] { _ = try? run("ip netns delete \(name)") }
    let left = ((try? FileManager.default.contentsOfDirectory(atPath: "/run/netns")) ?? []).filter {
      $0.hasPrefix(prefix)
    }
    #expect(left.isEmpty, "network namespaces are left over")
  }

  private func run(_ command: String) throws {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = command.split(separator: " ").map(String.init)
    process.environment = ["PATH": "/usr/sbin:/usr/bin:/sbin:/bin"]
    process.standardError = FileHandle.nullDevice
    try process.run()
    process.waitUntilExit()
    guard process.terminationStatus == 0 else {
      throw HarnessError("\(command): exit status \(process.terminationStatus)")
    }
  }
}
