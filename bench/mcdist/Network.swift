import BenchSupport
import Foundation
import Glibc

/// A sender and receivers on this machine: a network namespace each, and one with the bridge that joins them.
///
/// A frame on it is one datagram, as on a wire: nothing is segmented behind the sender's interface. Loss is at the
/// bridge's ports, of each frame for each receiver by itself.
final class Network {
  private let prefix = "sfbm\(getpid())-"
  let receivers: Int
  static let interface = "eth0"

  init(receivers: Int) throws {
    self.receivers = receivers
    do { try make() } catch {
      remove()
      throw error
    }
  }

  /// Host 0 is the sender.
  func namespace(_ host: Int) -> String { "\(prefix)\(host)" }
  func address(_ host: Int) -> String { "10.78.0.\(host + 1)" }
  private var bridge: String { "\(prefix)b" }

  private func make() throws {
    try run("ip netns add \(bridge)")
    try run("ip -n \(bridge) link add br0 type bridge mcast_snooping 0")
    try run("ip -n \(bridge) link set br0 up")
    for host in 0...receivers {
      let name = namespace(host)
      try run("ip netns add \(name)")
      try run("ip -n \(bridge) link add p\(host) type veth peer name \(Self.interface) netns \(name)")
      try run("ip -n \(bridge) link set p\(host) master br0 up")
      try run("ip -n \(name) link set lo up")
      try run("ip -n \(name) link set \(Self.interface) up")
      try run("ip -n \(name) address add \(address(host))/24 broadcast + dev \(Self.interface)")
      try run("ip -n \(name) route add 224.0.0.0/4 dev \(Self.interface)")
      let whole = "tso off gso off tx-udp-segmentation off"
      try run("ip netns exec \(bridge) ethtool -K p\(host) \(whole)")
      try run("ip netns exec \(name) ethtool -K \(Self.interface) \(whole) gro on")
    }
  }

  /// From now on `percent` of the frames to each receiver are lost.
  func lose(_ percent: Int) throws {
    _ = try? run("ip netns exec \(bridge) nft delete table netdev loss")
    guard percent > 0 else { return }
    var rules = "table netdev loss {\n"
    for host in 1...receivers {
      rules += """
         chain p\(host) { type filter hook egress device p\(host) priority 0; policy accept;
          numgen random mod 100 < \(percent) drop
         }

        """
    }
    try run("ip netns exec \(bridge) nft -f -", input: rules + "}\n")
  }

  /// The sender's link, bits a second.
  func limit(megabits: Int) throws {
    let device = "dev \(Self.interface) root"
    _ = try? run("ip netns exec \(namespace(0)) tc qdisc del \(device)")
    guard megabits > 0 else { return }
    try run(
      "ip netns exec \(namespace(0)) tc qdisc add \(device) tbf rate \(megabits)mbit burst 64k limit 1m")
  }

  func remove() {
    for name in (0...receivers).map(namespace) + [bridge]
    where FileManager.default.fileExists(atPath: "/run/netns/\(name)") {
      _ = try? run("ip netns delete \(name)")
    }
  }

  private func run(_ command: String, input: String = "") throws {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = command.split(separator: " ").map(String.init)
    process.environment = ["PATH": "/usr/sbin:/usr/bin:/sbin:/bin"]
    let (stdin, stderr) = (Pipe(), Pipe())
    process.standardInput = stdin
    process.standardOutput = FileHandle.nullDevice
    process.standardError = stderr
    try process.run()
    try stdin.fileHandleForWriting.write(contentsOf: Data(input.utf8))
    try stdin.fileHandleForWriting.close()
    let said = String(decoding: stderr.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    guard process.terminationStatus == 0 else {
      throw BenchError("\(command): \(said.trimmingCharacters(in: .whitespacesAndNewlines))")
    }
  }
}
