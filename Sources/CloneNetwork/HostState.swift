import Glibc
import LinuxSystem

/// What a host has of families: handles on the kernel, and what is known to be there.
final class HostState {
  /// A family, as it was made or found.
  struct Family {
    /// Nil: found, and not yet made by this process.
    var made: (network: FamilyNetwork, plan: AddressPlan)?
    var peers: Set<IPv4Address> = []
    var vxlanPort: UInt16?
    /// The outer address of its router; nil: it has none.
    var router: IPv4Address?
    /// Of the router's inner side.
    var subnet: IPv4Subnet?
    var forwards: Set<HostPort> = []
  }

  let namespace: NetworkNamespace
  /// Of the namespace: part of the names of routers' namespaces, which all hosts of a machine have in one place.
  let number: UInt64
  let netlink: NetlinkSocket
  let nftables: NFTables
  /// A packet socket that receives nothing.
  let packets: OwnedDescriptor
  var families: [String: Family] = [:]
  /// By the interface's name.
  var taps: [String: TapInterface] = [:]
  /// The kernel did not forward packets before we asked for it. A rule in the chain `others` says so to the next
  /// process.
  private var forwardsForUsOnly = false

  init(namespace path: String?) throws(NetworkError) {
    let operation = "open the host's network"
    do {
      namespace = try path.map { try NetworkNamespace(path: $0) } ?? NetworkNamespace.current()
      number = try namespace.number
      (netlink, nftables, packets) = try namespace.run {
        (try NetlinkSocket(), try NFTables(), try Announcement.socket())
      }
    } catch { throw .wrap(operation, error) }
    try load(operation)
  }

  /// Reads from the kernel what there is. Families keep what they were made with.
  func load(_ operation: String) throws(NetworkError) {
    let made = families.compactMapValues(\.made)
    families = [:]
    taps = [:]
    do {
      let links = try netlink.links()
      let addresses = try netlink.addresses()
      for link in links {
        guard let kind = InterfaceNames.kind(of: link.name),
          let owner = InterfaceNames.owner(alias: link.alias)
        else { continue }
        switch kind {
        case .tap:
          if let vm = owner.detail {
            taps[link.name] = TapInterface(
              name: link.name, family: owner.family, vm: vm, binding: nil, index: link.index)
          }
        case .bridge, .routerPort: families[owner.family, default: Family()].made = made[owner.family]
        case .vxlan:
          families[owner.family, default: Family()].vxlanPort = link.vxlan?.port
          families[owner.family]?.peers = Set(
            try netlink.remoteStations(vxlan: link.index).filter(\.isForEverybody).map(\.host))
        case .routerLink:
          families[owner.family, default: Family()].subnet = owner.detail.flatMap { IPv4Subnet($0) }
          families[owner.family, default: Family()].router = addresses.first { $0.index == link.index }.map {
            IPv4Address(number: $0.address.number + 1)
          }
        }
      }
    } catch { throw .wrap(operation, error) }
    let others = try nftables.list("list chain \(HostRules.inetTable) others", operation) ?? []
    forwardsForUsOnly = forwardsForUsOnly || others.contains { $0["rule"] != nil }
    for (tap, binding) in try bindings(operation) { taps[tap]?.binding = binding }
    for (port, router) in try forwards(operation) {
      for (family, _) in families.filter({ $0.value.router == router }) {
        families[family]?.forwards.insert(port)
      }
    }
  }

  /// The bindings in the kernel's set, also of taps that are gone.
  func bindings(_ operation: String) throws(NetworkError) -> [(tap: String, TapBinding)] {
    (try nftables.elements(HostRules.bound, operation) ?? []).compactMap { element in
      guard element.count == 3, let mac = MACAddress(element[1]), let address = IPv4Address(element[2]) else {
        return nil
      }
      return (element[0], TapBinding(mac: mac, address: address))
    }
  }

  private func forwards(_ operation: String) throws(NetworkError) -> [(HostPort, IPv4Address)] {
    let things = try nftables.list("list map \(HostRules.inetTable) forwards", operation) ?? []
    let elements = things.compactMap { ($0["map"] as? [String: Any])?["elem"] as? [[Any]] }.joined()
    return elements.compactMap { element in
      guard element.count == 2, let key = (element[0] as? [String: Any])?["concat"] as? [Any], key.count == 2,
        let number = UInt16("\(key[1])"), let router = IPv4Address("\(element[1])")
      else { return nil }
      // The protocol comes as a name or as its number, as libnftables is built.
      let transport: Transport? =
        switch "\(key[0])" {
        case "tcp", "6": .tcp
        case "udp", "17": .udp
        default: nil
        }
      return transport.map { (HostPort(transport: $0, number: number), router) }
    }
  }

  /// Replaces what is bound by what is known to be.
  private var boundRules: String {
    taps.values.sorted { $0.name < $1.name }.reduce(into: HostRules.flushBound) { text, tap in
      if let binding = tap.binding { text += HostRules.addBound(tap.name, index: tap.index, binding) }
    }
  }

  /// Puts all rules and sets as they have to be, in one transaction.
  func applyRules(_ operation: String) throws(NetworkError) {
    let all = families.values
    let hasRouter = all.contains { $0.router != nil }
    var text = HostRules.bridge + HostRules.inet + boundRules
    text += hasRouter ? HostRules.outward : HostRules.noOutward
    text += HostRules.setPeers(
      all.reduce(into: []) { $0.formUnion($1.peers) }, ports: Set(all.compactMap(\.vxlanPort)))
    if hasRouter {
      var forwards: [HostPort: IPv4Address] = [:]
      for (name, family) in families.sorted(by: { $0.key < $1.key }) {
        guard let router = family.router else { continue }
        for port in family.forwards { forwards[port] = router }
        if let subnet = family.subnet { text += HostRules.maskClients(family: name, subnet: subnet) }
      }
      text += HostRules.setForwards(forwards)
    }
    try nftables.run(text, operation)
  }

  /// Makes the kernel forward packets from here on. If nobody had wanted it, those of others still are not.
  func openForwarding(_ operation: String) throws(NetworkError) {
    if try forwarding(operation) == "0" { forwardsForUsOnly = true }
    guard forwardsForUsOnly else { return }
    try nftables.run(HostRules.closeOthers, operation)
    try setForwarding("1", operation)
  }

  /// No packets are forwarded any more, if nobody but us had wanted it.
  func closeForwarding(_ operation: String) throws(NetworkError) {
    if forwardsForUsOnly { try setForwarding("0", operation) }
    forwardsForUsOnly = false
  }

  private static let forwardingPath = "/proc/sys/net/ipv4/ip_forward"

  private func forwarding(_ operation: String) throws(NetworkError) -> String {
    do { return try namespace.run { try readSetting(Self.forwardingPath) } } catch {
      throw .wrap(operation, error)
    }
  }

  private func setForwarding(_ value: String, _ operation: String) throws(NetworkError) {
    do { try namespace.run { try writeSetting(Self.forwardingPath, value) } } catch {
      throw .wrap(operation, error)
    }
  }
}

extension NetworkError {
  static func wrap(_ operation: String, _ error: any Error) -> NetworkError {
    switch error {
    case let error as NetworkError: return error
    case let error as NetlinkFailure: return error.error(operation)
    case let error as SystemError:
      let isRefused = [EPERM, EACCES, EROFS].contains(error.errno)
      return NetworkError(
        isRefused ? .unsupported : .failed, operation, cause: "\(error)",
        remedy: isRefused ? "Run as root, where /proc/sys may be written." : "")
    default: return NetworkError(.failed, operation, cause: "\(error)")
    }
  }
}

/// A file of /proc/sys, of the calling thread's namespace where it lies under net.
func readSetting(_ path: String) throws -> String {
  let file = try OwnedDescriptor.open(path, O_RDONLY)
  var buffer = [UInt8](repeating: 0, count: 64)
  let count = try buffer.withUnsafeMutableBytes { try file.read(into: $0) }
  return String(decoding: buffer[..<count].prefix { $0 > 0x20 }, as: UTF8.self)
}

func writeSetting(_ path: String, _ value: String) throws {
  let file = try OwnedDescriptor.open(path, O_WRONLY)
  try Array(value.utf8).withUnsafeBytes { try file.writeFully($0) }
}
