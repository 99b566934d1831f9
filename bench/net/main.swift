// Frames between two taps, through a family's bridge with its filters and through a bridge without any, in turn within
// one run; and what the calls of CloneNetwork take. JSON lines on stdout, a table on stderr. As root.

import CloneNetwork
import Foundation
import Glibc
import LinuxSystem

struct Line: Encodable {
  let bench = "net"
  var figure: String
  /// Of `taps` that are already bound, for calls.
  var taps: Int?
  var median: Double
  var min: Double
  var max: Double
  /// To the plain bridge's in the same round, the median of the rounds.
  var ratioToPlain: Double?
  /// Whether bridged frames meet the rules for IP packets too (br_netfilter).
  var bridgeNetfilter: Bool?
  let cpus = ProcessInfo.processInfo.activeProcessorCount
}

let encoder = JSONEncoder()
encoder.keyEncodingStrategy = .convertToSnakeCase
encoder.outputFormatting = [.sortedKeys]

func median(_ values: [Double]) -> Double { values.sorted()[values.count / 2] }

func tell(
  _ figure: String, _ samples: [Double], taps: Int? = nil, plain: [Double]? = nil, better: Double = 1,
  bridgeNetfilter: Bool? = nil
) throws {
  let ratio = plain.map { median(zip(samples, $0).map { better > 0 ? $0 / $1 : $1 / $0 }) }
  let line = Line(
    figure: figure, taps: taps, median: median(samples), min: samples.min()!, max: samples.max()!,
    ratioToPlain: ratio, bridgeNetfilter: bridgeNetfilter)
  print(String(decoding: try encoder.encode(line), as: UTF8.self))
  let setting =
    (bridgeNetfilter ?? false ? " with br_netfilter" : "") + (taps.map { " with \($0) taps" } ?? "")
  let comparison = ratio.map { String(format: ", %.3f of a plain bridge", $0) } ?? ""
  FileHandle.standardError.write(
    Data("\(figure)\(setting): \(String(format: "%.4g", line.median))\(comparison)\n".utf8))
}

func tool(_ command: String) throws {
  let process = Process()
  process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
  process.arguments = command.split(separator: " ").map(String.init)
  try process.run()
  process.waitUntilExit()
  guard process.terminationStatus == 0 else { throw SystemError(command, errno: EIO) }
}

func familyWire(segments: Bool) throws -> Wire {
  try Wire("family", segments: segments) { name, _ in
    let network = try HostNetwork(namespace: "/run/netns/\(name)")
    let family = FamilyNetwork(
      family: "dev", vni: 1, subnet: IPv4Subnet("10.111.0.0/16")!, underlay: IPv4Address("127.0.0.1")!)
    try network.make(family)
    return try (0...1).map { vmid in
      let tap = try network.addTap(vm: "dev.\(vmid)", family: "dev").name
      let address = AddressPlan(family.subnet)!.address(vmid: vmid)!
      try network.bind(tap: tap, mac: AddressPlan.mac(of: address), address: address)
      return tap
    }
  }
}

func plainWire(segments: Bool) throws -> Wire {
  try Wire("plain", segments: segments) { name, _ in
    try tool("ip -n \(name) link add bridge type bridge mcast_snooping 0")
    try tool("ip -n \(name) link set bridge up")
    for tap in ["tap0", "tap1"] {
      try tool("ip -n \(name) tuntap add \(tap) mode tap")
      try tool("ip -n \(name) link set \(tap) master bridge mtu 1450 up")
    }
    return ["tap0", "tap1"]
  }
}

/// Alternating rounds of both; lost frames give no sample.
func compare(
  _ figure: String, segments: Bool, rounds: Int, better: Double, bridgeNetfilter: Bool,
  _ value: (Wire) throws -> Double?
) throws {
  let wires = [try familyWire(segments: segments), try plainWire(segments: segments)]
  defer { for wire in wires { try? wire.remove() } }
  for wire in wires {
    try tool(
      "ip netns exec \(wire.name) sysctl -qw net.bridge.bridge-nf-call-iptables=\(bridgeNetfilter ? 1 : 0)")
    _ = try value(wire)
  }
  var samples: [[Double]] = [[], []]
  for round in 0..<rounds {
    // Who is first changes, for the first one finds what the other left in the caches.
    var pair: [Double?] = [nil, nil]
    for index in round % 2 == 0 ? [0, 1] : [1, 0] { pair[index] = try value(wires[index]) }
    if let own = pair[0], let plain = pair[1] {
      samples[0].append(own)
      samples[1].append(plain)
    }
  }
  guard !samples[0].isEmpty else {
    throw SystemError("bench", subject: "\(figure): all rounds lost frames", errno: EIO)
  }
  try tell(figure, samples[0], plain: samples[1], better: better, bridgeNetfilter: bridgeNetfilter)
}

func microseconds(_ body: () throws -> Void) rethrows -> Double {
  let start = monotonicNanoseconds()
  try body()
  return Double(monotonicNanoseconds() - start) / 1000
}

func calls(taps count: Int) throws {
  let name = "sfbn\(getpid())-calls"
  _ = try NetworkNamespace.make(named: name)
  defer { try? NetworkNamespace.remove(named: name) }
  let network = try HostNetwork(namespace: "/run/netns/\(name)")
  var family = FamilyNetwork(
    family: "dev", vni: 1, subnet: IPv4Subnet("10.111.0.0/16")!, underlay: IPv4Address("192.0.2.1")!,
    peers: Set((2...8).map { IPv4Address("192.0.2.\($0)")! }))
  let plan = AddressPlan(family.subnet)!
  let made = try microseconds { try network.make(family) }
  var added: [Double] = []
  var bound: [Double] = []
  for vmid in 1...count + 50 {
    var tap = ""
    let adding = try microseconds { tap = try network.addTap(vm: "dev.\(vmid)", family: "dev").name }
    let address = plan.address(vmid: vmid)!
    let binding = try microseconds {
      try network.bind(tap: tap, mac: AddressPlan.mac(of: address), address: address)
    }
    guard vmid > count else { continue }
    added.append(adding)
    bound.append(binding)
  }
  try tell("make_us", [made], taps: 0)
  try tell("add_tap_us", added, taps: count)
  try tell("bind_us", bound, taps: count)
  try tell(
    "make_again_us", try (0..<20).map { _ in try microseconds { try network.make(family) } }, taps: count)
  family.outward = OutwardPolicy(allowed: [.init(IPv4Subnet("0.0.0.0/0")!)], bytesPerSecondMax: 10_000_000)
  try tell("make_router_us", [try microseconds { try network.make(family) }], taps: count)
  let last = network.taps(family: "dev").last!.name
  try tell("remove_taps_us", [try microseconds { try network.removeTaps([last]) }], taps: count)
  try tell("sweep_us", [try microseconds { try network.sweep(keeping: []) }], taps: count)
}

let rounds = CommandLine.arguments.contains("--quick") ? 200 : 1000
do {
  for count in [0, 500] { try calls(taps: count) }
  // br_netfilter is in this kernel; on most it is a module that only container engines load.
  for bridgeNetfilter in [false, true] {
    func compare(_ figure: String, segments: Bool, better: Double, _ value: (Wire) throws -> Double?) throws {
      try bench_net.compare(
        figure, segments: segments, rounds: rounds, better: better, bridgeNetfilter: bridgeNetfilter, value)
    }
    try compare("segments_bytes_per_s", segments: true, better: 1) { wire in
      let (count, bytes) = (256, 65_000)
      return try wire.oneWay(count, bytes: bytes).map { Double(count * bytes) / $0 }
    }
    try compare("frames_per_s", segments: false, better: 1) { wire in
      try wire.oneWay(1024, bytes: 1464).map { 1024 / $0 }
    }
    try compare("path_round_trip_us", segments: false, better: -1) { wire in
      try wire.roundTrips(512, bytes: 100).map { $0 * 1e6 / 512 }
    }
    try compare("round_trip_us", segments: false, better: -1) { wire in
      try wire.echoes(200, bytes: 100).map { $0 * 1e6 / 200 }
    }
  }
} catch {
  FileHandle.standardError.write(Data("bench-net: \(error)\n".utf8))
  exit(1)
}
