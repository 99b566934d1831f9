import CloneNetwork
import Foundation
import Glibc
import LinuxSystem
import Testing

struct TestError: Error, CustomStringConvertible {
  var description: String
  init(_ description: String) { self.description = description }
}

/// A host: a network namespace of its own. What is left in it, or of it, at the end is a test's failure.
final class TestHost {
  let name: String
  let namespace: NetworkNamespace
  let network: HostNetwork
  private let ownInterfaces: Set<String>

  /// Cables of the host must be plugged in by `setUp`, before any family is made.
  init(_ setUp: (String) throws -> Void = { _ in }) throws {
    name = "sfn\(getpid())-\(UInt32.random(in: 0 ..< .max))"
    namespace = try NetworkNamespace.make(named: name)
    do {
      try runTool("ip -n \(name) link set lo up")
      try setUp(name)
      network = try HostNetwork(namespace: "/run/netns/\(name)")
      ownInterfaces = Set(try Self.interfaces(name))
    } catch {
      try NetworkNamespace.remove(named: name)
      throw error
    }
  }

  /// Ends all families and the host. Nothing of ours may be left before the namespace goes.
  func close() {
    do {
      try network.sweep(keeping: [])
      expectNothingLeft()
      try NetworkNamespace.remove(named: name)
    } catch { Issue.record("\(error)") }
  }

  func expectNothingLeft(_ location: SourceLocation = #_sourceLocation) {
    do {
      let left = Set(try interfaces).subtracting(ownInterfaces)
      #expect(left.isEmpty, "interfaces are left", sourceLocation: location)
      #expect(try rules == "", "rules are left", sourceLocation: location)
      #expect(try routerNamespaces.isEmpty, "routers are left", sourceLocation: location)
      #expect(try !routes.contains("169.254"), "routes are left", sourceLocation: location)
      #expect(try forwarding == "0", "packets are still forwarded", sourceLocation: location)
    } catch { Issue.record("\(error)", sourceLocation: location) }
  }

  var interfaces: [String] { get throws { try Self.interfaces(name) } }
  var rules: String { get throws { try tool("nft list ruleset") } }
  var routes: String { get throws { try tool("ip route show table all type unicast") } }
  var routerNamespaces: [String] {
    get throws { try NetworkNamespace.names(prefix: "sfr-\(try namespace.number)-") }
  }
  var forwarding: String { get throws { try tool("sysctl -n net.ipv4.ip_forward") } }

  private static func interfaces(_ name: String) throws -> [String] {
    // `2: eth0@if3: <…`
    try runTool("ip -n \(name) -o link show").split(separator: "\n").map {
      String($0.split(separator: ":")[1].split(separator: "@")[0]).trimmingCharacters(in: .whitespaces)
    }
  }

  /// Runs a program in the host.
  @discardableResult
  func tool(_ command: String) throws -> String { try runTool("ip netns exec \(name) \(command)") }

  /// A VM of a family: the tap, bound to what the plan gives the vmid, and opened.
  func guest(_ family: FamilyNetwork, vmid: Int) throws -> TestGuest {
    let tap = try network.addTap(vm: "\(family.family).\(vmid)", family: family.family)
    let guest = try TestGuest(self, tap: tap.name, family, vmid: vmid)
    try network.bind(tap: tap.name, mac: guest.mac, address: guest.address)
    return guest
  }
}

/// Two hosts on one cable, 192.0.2.1 and 192.0.2.2.
func twoHosts() throws -> (TestHost, TestHost) {
  let second = try TestHost { second in
    try runTool("ip -n \(second) link add eth0 type veth peer name eth1")
    try runTool("ip -n \(second) addr add 192.0.2.2/24 dev eth0")
    try runTool("ip -n \(second) link set eth0 up")
  }
  let first = try TestHost { first in
    try runTool("ip -n \(second.name) link set eth1 netns \(first)")
    try runTool("ip -n \(first) link set eth1 name eth0")
    try runTool("ip -n \(first) addr add 192.0.2.1/24 dev eth0")
    try runTool("ip -n \(first) link set eth0 up")
  }
  return (first, second)
}

/// A family with usual numbers; peers are the other one of `twoHosts`.
func family(
  _ name: String, vni: UInt32 = 7, host: Int = 1, hosts: Int = 1, subnet: String = "10.111.0.0/16",
  outward: OutwardPolicy? = nil, forwards: Set<PortForward> = []
) -> FamilyNetwork {
  FamilyNetwork(
    family: name, vni: vni, subnet: IPv4Subnet(subnet)!, underlay: IPv4Address("192.0.2.\(host)")!,
    peers: Set((1...hosts).filter { $0 != host }.map { IPv4Address("192.0.2.\($0)")! }), outward: outward,
    forwards: forwards)
}

/// Runs a program to its end; its output. Words are separated by single blanks.
@discardableResult
func runTool(_ command: String) throws -> String {
  let process = Process()
  process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
  process.arguments = command.split(separator: " ").map(String.init)
  process.environment = ["PATH": "/usr/sbin:/usr/bin:/sbin:/bin"]
  let output = Pipe()
  let error = Pipe()
  process.standardOutput = output
  process.standardError = error
  try process.run()
  let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
  let complaint = String(decoding: error.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
  process.waitUntilExit()
  guard process.terminationStatus == 0 else {
    throw TestError("\(command): exit status \(process.terminationStatus): \(complaint)")
  }
  return text.trimmingCharacters(in: .whitespacesAndNewlines)
}

/// Asks until the answer is yes. The deadline is there so that nothing hangs.
func eventually(_ condition: () throws -> Bool) rethrows -> Bool {
  let deadline = ContinuousClock.now + .seconds(30)
  while ContinuousClock.now < deadline {
    if try condition() { return true }
    usleep(20_000)
  }
  return try condition()
}
