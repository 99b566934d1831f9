import LinuxSystem

/// The router of a family that may reach outside, or is reached: a network namespace of its own between the family's
/// bridge and the host. Its gateway address, its connections and its routes are nobody else's.
extension HostState {
  private func routerName(_ family: String) -> String {
    InterfaceNames.routerPrefix(host: number) + InterfaceNames.suffix(family)
  }

  func makeRouter(_ network: FamilyNetwork, _ plan: AddressPlan, bridge: CInt) throws {
    let family = network.family
    let name = routerName(family)
    let router = try NetworkNamespace(named: name) ?? makeNamespace(name)
    let (inside, rules) = try router.run { (try NetlinkSocket(), try NFTables()) }
    // Rules first: from its first packet on, nothing passes that may not.
    try rules.run(RouterRules.text(network, plan), "make the router of family \(family)")

    let port = try veth(.routerPort, family, to: RouterRules.inner, router, inside)
    try netlink.setLink(
      port.near, alias: InterfaceNames.alias(family: family), mtu: network.mtu, master: bridge)
    try netlink.setPort(
      port.near, .init(learns: true, takesBroadcast: true, takesUnknown: true, isIsolated: true))
    try inside.setLink(port.far, mac: AddressPlan.mac(of: plan.gateway), mtu: network.mtu)
    try setOnlyAddress(plan.gateway, prefixLength: plan.subnet.prefixLength, port.far, inside)
    try netlink.setUp(port.near)
    try inside.setUp(port.far)
    try inside.setLocalRoute(plan.subnet, source: plan.gateway, index: port.far)

    let link = try veth(.routerLink, family, to: RouterRules.outer, router, inside)
    try netlink.setLink(
      link.near, alias: InterfaceNames.alias(family: family, "\(plan.subnet)"), mtu: max(1500, network.mtu))
    try inside.setLink(link.far, mtu: max(1500, network.mtu))
    let host = try linkAddress(link.near)
    let outer = IPv4Address(number: host.number + 1)
    try setOnlyAddress(host, prefixLength: 31, link.near, netlink)
    try setOnlyAddress(outer, prefixLength: 31, link.far, inside)
    try netlink.setUp(link.near)
    try inside.setUp(link.far)
    let pair = IPv4Subnet(base: host, prefixLength: 31)!
    try netlink.setLocalRoute(pair, source: host, index: link.near)
    try inside.setLocalRoute(pair, source: outer, index: link.far)
    try inside.setDefaultRoute(gateway: host, index: link.far)

    let rate = network.outward?.bytesPerSecondMax
    // A tenth of a second may wait, at least some of the largest packets.
    let queue = UInt32(clamping: max((rate ?? 0) / 10, 131_072))
    for index in [port.far, link.far] { try inside.setRate(index, bytesPerSecond: rate, queueBytes: queue) }
    try router.run { try writeSetting("/proc/sys/net/ipv4/ip_forward", "1") }

    families[family]?.router = outer
    families[family]?.subnet = plan.subnet
    let operation = "make the router of family \(family)"
    try applyRules(operation)
    try openForwarding(operation)
  }

  /// A name may be left of a namespace that has gone.
  private func makeNamespace(_ name: String) throws -> NetworkNamespace {
    try NetworkNamespace.remove(named: name)
    return try NetworkNamespace.make(named: name)
  }

  /// A cable from the host into the router's namespace: the indices of its ends.
  private func veth(
    _ kind: InterfaceNames.Kind, _ family: String, to far: String, _ router: NetworkNamespace,
    _ inside: NetlinkSocket
  ) throws -> (near: CInt, far: CInt) {
    let name = InterfaceNames.name(kind, family: family)
    // One whose other end is in a namespace that nobody finds any more is useless.
    if let old = try netlink.link(name), try inside.link(far) == nil { try netlink.deleteLink(old.index) }
    let near = try interface(name, kind: "veth", family) {
      try netlink.makeVeth(name, peer: far, namespace: router.descriptor.raw)
    }
    guard let end = try inside.link(far) else {
      throw NetworkError(.failed, "make the interface \(name)", cause: "its other end is not there")
    }
    return (near.index, end.index)
  }

  private func setOnlyAddress(
    _ address: IPv4Address, prefixLength: Int, _ index: CInt, _ socket: NetlinkSocket
  ) throws {
    for old in try socket.addresses() where old.index == index {
      if old.address != address || old.prefixLength != prefixLength {
        try socket.deleteAddress(old.address, prefixLength: old.prefixLength, index: index)
      }
    }
    try socket.addAddress(address, prefixLength: prefixLength, index: index)
  }

  /// The host's address on the way to a router: the one it has, or the first pair of addresses that is free.
  private func linkAddress(_ index: CInt) throws -> IPv4Address {
    let all = try netlink.addresses()
    if let own = all.first(where: { $0.index == index && HostRules.links.contains($0.address) }) {
      return own.address
    }
    let taken = Set(all.map { $0.address.number & ~1 })
    let first = HostRules.links.base.number
    for number in stride(from: first, to: HostRules.links.last.number, by: 2) where !taken.contains(number) {
      return IPv4Address(number: number)
    }
    throw NetworkError(
      .exhausted, "make a router",
      cause: "all \(HostRules.links.count / 2) pairs of \(HostRules.links) are in use",
      remedy: "Remove families that reach outside.")
  }

  /// Takes away what there is of the family's router. Connections through it end.
  func removeRouter(_ family: String) throws {
    // The other ends go with them, also where somebody still holds the namespace.
    var indices: [CInt] = []
    for kind in [InterfaceNames.Kind.routerPort, .routerLink] {
      if let link = try netlink.link(InterfaceNames.name(kind, family: family)) { indices.append(link.index) }
    }
    try netlink.deleteLinks(indices)
    let name = routerName(family)
    if try NetworkNamespace.names(prefix: name).contains(name) { try NetworkNamespace.remove(named: name) }
    guard families[family]?.router != nil else { return }
    families[family]?.router = nil
    families[family]?.forwards = []
    if !families.values.contains(where: { $0.router != nil }) {
      try closeForwarding("remove the router of family \(family)")
    }
  }
}
