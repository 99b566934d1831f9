import LinuxSystem

/// Bridge and VXLAN of a family, and their end.
extension HostState {
  func make(_ network: FamilyNetwork) throws(NetworkError) {
    let family = network.family
    let operation = "make the network of family \(family)"
    let plan = try network.check()
    try checkOthers(network, operation)
    let before = families[family]
    var known = before ?? Family()
    known.made = (network, plan)
    // Until the old peers are gone from the VXLAN interface, frames from both are taken.
    known.peers.formUnion(network.peers)
    known.vxlanPort = network.port
    families[family] = known
    do {
      try applyRules(operation)
      let bridge = try makeBridge(network)
      try makeVXLAN(network, bridge: bridge)
      if network.needsRouter {
        try makeRouter(network, plan, bridge: bridge)
      } else {
        try removeRouter(family)
      }
      families[family]?.peers = network.peers
      families[family]?.forwards = Set(
        network.forwards.map { HostPort(transport: $0.transport, number: $0.hostPort) })
      try applyRules(operation)
    } catch {
      if before == nil {
        // What can not be taken back now, a sweep takes later.
        try? remove(family)
      } else {
        families[family]?.made = before?.made
      }
      throw .wrap(operation, error)
    }
  }

  /// What only one family may have.
  private func checkOthers(_ network: FamilyNetwork, _ operation: String) throws(NetworkError) {
    let ports = Set(network.forwards.map { HostPort(transport: $0.transport, number: $0.hostPort) })
    for (name, other) in families where name != network.family {
      if let made = other.made?.network, made.vni == network.vni {
        throw NetworkError(
          .inUse, operation, cause: "family \(name) has VNI \(network.vni)", remedy: "Take another one.")
      }
      if let port = ports.intersection(other.forwards).first {
        throw NetworkError(
          .inUse, operation,
          cause: "\(port.transport.rawValue) port \(port.number) of this host leads to family \(name)",
          remedy: "Forward another one.")
      }
    }
  }

  private func makeBridge(_ network: FamilyNetwork) throws -> CInt {
    let name = InterfaceNames.name(.bridge, family: network.family)
    let link = try interface(name, kind: "bridge", network.family) { try netlink.makeBridge(name) }
    try netlink.setLink(
      link.index, alias: InterfaceNames.alias(family: network.family), mtu: network.mtu)
    try netlink.setUp(link.index)
    return link.index
  }

  private func makeVXLAN(_ network: FamilyNetwork, bridge: CInt) throws {
    let name = InterfaceNames.name(.vxlan, family: network.family)
    let wanted = NetlinkSocket.VXLAN(vni: network.vni, local: network.underlay, port: network.port)
    // Its numbers can not be changed.
    if let old = try netlink.link(name), old.vxlan != wanted { try netlink.deleteLink(old.index) }
    let link = try interface(name, kind: "vxlan", network.family) {
      do { try netlink.makeVXLAN(name, wanted) } catch let error as NetlinkFailure where error.isExisting {
        throw NetworkError(
          .inUse, "make the network of family \(network.family)",
          cause: "another VXLAN interface of this host has VNI \(network.vni)", remedy: "Take another one.")
      }
    }
    try netlink.setLink(
      link.index, alias: InterfaceNames.alias(family: network.family), mtu: network.mtu, master: bridge)
    // Isolated: what comes from other hosts does not reach this host's router, nor the other way round.
    try netlink.setPort(
      link.index, .init(learns: true, takesBroadcast: true, takesUnknown: true, isIsolated: true))
    try netlink.setUp(link.index)

    let stations = try netlink.remoteStations(vxlan: link.index)
    for station in stations where !network.peers.contains(station.host) {
      try netlink.deleteRemote(vxlan: link.index, station)
    }
    for host in network.peers.subtracting(stations.filter(\.isForEverybody).map(\.host)) {
      try netlink.addReplica(vxlan: link.index, host: host)
    }
  }

  /// The interface of that name, made if there is none. Of another kind or family it is not ours to take.
  func interface(
    _ name: String, kind: String, _ family: String, make: () throws -> Void
  ) throws -> NetlinkSocket.Link {
    if try netlink.link(name) == nil { try make() }
    guard let link = try netlink.link(name) else {
      throw NetworkError(.failed, "make the interface \(name)", cause: "somebody removed it at once")
    }
    let owner = InterfaceNames.owner(alias: link.alias)
    guard link.kind == kind, owner == nil || owner?.family == family else {
      throw NetworkError(
        .inUse, "make the interface \(name)", cause: "there is another one of this name",
        remedy: "Give the family another name.")
    }
    return link
  }

  func remove(_ family: String) throws(NetworkError) {
    let operation = "remove the network of family \(family)"
    try removeTaps(taps.values.filter { $0.family == family }.map(\.name))
    do {
      try removeRouter(family)
      var indices: [CInt] = []
      for kind in [InterfaceNames.Kind.vxlan, .bridge] {
        if let link = try netlink.link(InterfaceNames.name(kind, family: family)) {
          indices.append(link.index)
        }
      }
      try netlink.deleteLinks(indices)
    } catch { throw .wrap(operation, error) }
    families[family] = nil
    try families.isEmpty ? removeRules(operation) : applyRules(operation)
  }

  private func removeRules(_ operation: String) throws(NetworkError) {
    try closeForwarding(operation)
    try nftables.run(HostRules.remove, operation)
  }

  func sweep(keeping kept: Set<String>, vms: Set<String>?) throws(NetworkError) {
    let operation = "sweep the networks of dead families"
    try load(operation)
    for family in families.keys where !kept.contains(family) { try remove(family) }
    try removeTaps(
      taps.values.filter { !kept.contains($0.family) || vms?.contains($0.vm) == false }.map(\.name))
    // What a crash left half-made has no owner, or belongs to no bridge.
    let suffixes = Set(kept.map { InterfaceNames.suffix($0) })
    do {
      let left = try netlink.links().filter { link in
        guard let kind = InterfaceNames.kind(of: link.name) else { return false }
        return kind == .tap ? taps[link.name] == nil : !suffixes.contains(String(link.name.dropFirst(3)))
      }
      try netlink.deleteLinks(left.map(\.index))
      let prefix = InterfaceNames.routerPrefix(host: number)
      for name in try NetworkNamespace.names(prefix: prefix)
      where !suffixes.contains(String(name.dropFirst(prefix.count))) {
        try NetworkNamespace.remove(named: name)
      }
    } catch { throw .wrap(operation, error) }
    try families.isEmpty ? removeRules(operation) : applyRules(operation)
  }
}
