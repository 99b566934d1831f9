import Foundation
import LinuxSystem
import Wire

/// Hosts on this machine: each a network namespace with an sfd of its own, on one bridge in a namespace of its own.
///
///     $SNOWFORK_RUN/lab/lab.json   what there is
///     $SNOWFORK_RUN/lab/hK         SNOWFORK_RUN of host hK;  $SNOWFORK_STATE/lab/hK its SNOWFORK_STATE
struct Lab: Codable {
  struct Host: Codable {
    var name: String
    var namespace: String
    var address: String
    var link: Link
  }

  var bridge: String
  var hosts: [Host]

  static func directory(_ paths: RuntimePaths) -> String { paths.run + "/lab" }
  private static func file(_ paths: RuntimePaths) -> String { directory(paths) + "/lab.json" }

  /// Nil: there is none.
  static func load(_ paths: RuntimePaths) -> Lab? {
    FileManager.default.contents(atPath: file(paths)).flatMap {
      try? JSONDecoder().decode(Lab.self, from: $0)
    }
  }

  func save(_ paths: RuntimePaths) throws {
    try FileManager.default.createDirectory(
      atPath: Self.directory(paths), withIntermediateDirectories: true)
    try JSONEncoder().encode(self).write(to: URL(fileURLWithPath: Self.file(paths)))
  }

  static func remove(_ paths: RuntimePaths) {
    try? FileManager.default.removeItem(atPath: directory(paths))
    try? FileManager.default.removeItem(atPath: paths.state + "/lab")
  }

  func paths(of host: Host, _ outer: RuntimePaths) -> RuntimePaths {
    RuntimePaths(run: Self.directory(outer) + "/\(host.name)", state: outer.state + "/lab/\(host.name)")
  }

  /// A name for this lab's namespaces and addresses that another lab on the machine has not.
  init(hosts count: Int, links: [LinkArgument], _ paths: RuntimePaths) throws(Failure) {
    let number = paths.run.utf8.reduce(UInt32(2_166_136_261)) { ($0 ^ UInt32($1)) &* 16_777_619 } % 60_000
    let tag = String(number, radix: 36)
    bridge = "sf\(tag)-br"
    hosts = (1...count).map {
      Host(
        name: "h\($0)", namespace: "sf\(tag)-h\($0)",
        address: "10.\(64 + number / 1000).\(number % 250).\($0)", link: .lan)
    }
    for argument in links {
      guard let index = hosts.firstIndex(where: { $0.name == argument.host }) else {
        throw Failure(
          "cannot make a lab: there is no host \(argument.host) for --link. They are h1 to h\(count).", .usage
        )
      }
      hosts[index].link = argument.link
    }
  }

  func host(_ name: String) throws(Failure) -> Host {
    guard let host = hosts.first(where: { $0.name == name }) else {
      throw Failure("there is no host \(name) in the lab. It has h1 to h\(hosts.count).", .notFound)
    }
    return host
  }

  // MARK: the network

  /// The host's end at the bridge.
  func port(of host: Host) -> String { "p\(hosts.firstIndex { $0.name == host.name } ?? 0)" }

  func makeNetwork() throws {
    try ip("netns", "add", bridge)
    try ip("-n", bridge, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
    try ip("-n", bridge, "link", "set", "br0", "up")
    for host in hosts {
      let port = port(of: host)
      try ip("netns", "add", host.namespace)
      if host.link.isLimited {
        // The ends of its relay, which opens them.
        try ip("-n", bridge, "tuntap", "add", "mode", "tap", "name", port)
        try ip("-n", host.namespace, "tuntap", "add", "mode", "tap", "name", "eth0")
      } else {
        try ip(
          "-n", bridge, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", host.namespace)
      }
      try ip("-n", bridge, "link", "set", port, "master", "br0", "up")
      try ip("-n", host.namespace, "link", "set", "lo", "up")
      try ip("-n", host.namespace, "link", "set", "eth0", "up")
      try ip("-n", host.namespace, "address", "add", "\(host.address)/24", "dev", "eth0")
      try ip("-n", host.namespace, "route", "add", "224.0.0.0/4", "dev", "eth0")
    }
  }

  /// Nothing of it is left, whatever there was.
  func removeNetwork() {
    for name in hosts.map(\.namespace) + [bridge]
    where FileManager.default.fileExists(atPath: "/run/netns/\(name)") {
      try? ip("netns", "delete", name)
    }
  }

  /// Each datagram that reaches the host is dropped with this probability.
  func setLoss(percent: Int, on host: Host) throws {
    _ = try? inside(host, "nft", "delete", "table", "inet", "snowfork_lab")
    guard percent > 0 else { return }
    try inside(host, "nft", "add", "table", "inet", "snowfork_lab")
    try inside(
      host, "nft", "add", "chain", "inet", "snowfork_lab", "input",
      "{ type filter hook input priority 0; }")
    try inside(
      host, "nft", "add", "rule", "inet", "snowfork_lab", "input", "iifname", "eth0", "numgen", "random",
      "mod",
      "100", "<", "\(percent)", "drop")
  }

  func setConnected(_ isConnected: Bool, host: Host) throws {
    try ip("-n", bridge, "link", "set", port(of: host), isConnected ? "up" : "down")
  }

  private func inside(_ host: Host, _ arguments: String...) throws {
    try Tool.run("ip", ["netns", "exec", host.namespace] + arguments)
  }

  private func ip(_ arguments: String...) throws { try Tool.run("ip", arguments, seconds: 30) }
}
