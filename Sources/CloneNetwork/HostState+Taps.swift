import LinuxSystem

/// Taps and who may speak from them.
extension HostState {
  /// A port that nobody is bound to: not even what is for all goes to it. Otherwise a slot would have in its queue,
  /// when it becomes a clone, what the family said before.
  private static let silent = NetlinkSocket.PortSettings(
    learns: false, takesBroadcast: false, takesUnknown: false, isIsolated: false)
  /// A port with a station: frames for others do not go to it.
  private static let speaking = NetlinkSocket.PortSettings(
    learns: false, takesBroadcast: true, takesUnknown: false, isIsolated: false)

  func addTap(vm: String, family: String, owner: UInt32?) throws(NetworkError) -> TapInterface {
    let operation = "make a network card for \(vm)"
    guard isName(vm) else {
      throw NetworkError(
        .invalid, operation, cause: "the name has other characters",
        remedy: "Use 1 to 100 of a-z, A-Z, 0-9, dot, _ and -.")
    }
    let (network, _) = try made(family, operation)
    let name = InterfaceNames.tap(vm: vm, family: family)
    do {
      guard let bridge = try netlink.link(InterfaceNames.name(.bridge, family: family)) else {
        throw NetworkError(
          .notFound, operation, cause: "the bridge of family \(family) is gone",
          remedy: "Make its network again.")
      }
      if try netlink.link(name) == nil {
        try forget([name], operation)
        try namespace.run {
          let tap = try TapDevice.open(name)
          try TapDevice.setPersistent(tap, true)
          if let owner { try TapDevice.setOwner(tap, owner) }
        }
      }
      let link = try interface(name, kind: "tun", family) {}
      if let vmOfLink = InterfaceNames.owner(alias: link.alias)?.detail, vmOfLink != vm {
        throw NetworkError(
          .inUse, operation, cause: "its interface \(name) is that of \(vmOfLink)",
          remedy: "Rename one of them.")
      }
      try netlink.setLink(
        link.index, alias: InterfaceNames.alias(family: family, vm), mtu: network.mtu,
        master: bridge.index)
      // One that somebody has made anew has another number.
      if taps[name]?.index != link.index { try forget([name], operation) }
      let tap = TapInterface(
        name: name, family: family, vm: vm, binding: taps[name]?.binding, index: link.index)
      try netlink.setPort(link.index, tap.binding == nil ? Self.silent : Self.speaking)
      if let binding = tap.binding { try netlink.setStation(binding.mac, port: link.index) }
      try netlink.setUp(link.index)
      taps[name] = tap
      return tap
    } catch { throw .wrap(operation, error) }
  }

  func bind(_ name: String, _ binding: TapBinding) throws(NetworkError) {
    guard var tap = taps[name] else { throw noTap(name, "bind") }
    let operation = "give \(binding.address) and \(binding.mac) to \(tap.vm)"
    let (_, plan) = try made(tap.family, operation)
    guard plan.vmid(of: binding.address) != nil else {
      throw NetworkError(
        .invalid, operation, cause: "\(binding.address) is reserved, or not of \(plan.subnet)",
        remedy: "Take an address of the plan.")
    }
    guard binding.mac.isUnicast, binding.mac != AddressPlan.mac(of: plan.gateway) else {
      throw NetworkError(
        .invalid, operation, cause: "\(binding.mac) is a group's or the gateway's",
        remedy: "Take the one that goes with the address.")
    }
    for other in taps.values where other.family == tap.family && other.name != name {
      guard let theirs = other.binding else { continue }
      if theirs.mac == binding.mac || theirs.address == binding.address {
        throw NetworkError(
          .inUse, operation, cause: "\(other.vm) has it", remedy: "Take another one, or unbind that VM first."
        )
      }
    }
    do {
      guard let link = try netlink.link(name), link.index == tap.index else { throw noTap(name, "bind") }
      let old = tap.binding
      if old != binding {
        let taken = old.map { HostRules.deleteBound(name, index: tap.index, $0) } ?? ""
        tap.binding = binding
        taps[name] = tap
        do {
          try runOrApply(taken + HostRules.addBound(name, index: tap.index, binding), operation)
        } catch {
          taps[name]?.binding = old
          throw error
        }
      }
      if let old, old.mac != binding.mac { try netlink.deleteStation(old.mac, port: link.index) }
      try netlink.setStation(binding.mac, port: link.index)
      try netlink.setPort(link.index, Self.speaking)
      if old != binding { try announce(binding, of: tap.family) }
    } catch { throw .wrap(operation, error) }
  }

  /// Other hosts may still take the VM to be where one of its address was before. It would tell them with its first
  /// frame; one that only listens would not be heard of.
  private func announce(_ binding: TapBinding, of family: String) throws {
    guard families[family]?.peers.isEmpty == false,
      let link = try netlink.link(InterfaceNames.name(.vxlan, family: family))
    else { return }
    try Announcement(binding).send(by: packets, interface: link.index)
  }

  func unbind(_ name: String) throws(NetworkError) {
    guard let tap = taps[name] else { throw noTap(name, "unbind") }
    let operation = "take the address from \(tap.vm)"
    try forget([name], operation)
    do {
      guard let link = try netlink.link(name) else { throw noTap(name, "unbind") }
      if let mac = tap.binding?.mac { try netlink.deleteStation(mac, port: link.index) }
      try netlink.setPort(link.index, Self.silent)
    } catch { throw .wrap(operation, error) }
  }

  func removeTaps(_ names: [String]) throws(NetworkError) {
    let operation =
      names.count == 1 ? "remove the network card \(names[0])" : "remove \(names.count) network cards"
    for name in names where InterfaceNames.kind(of: name) != .tap { throw noTap(name, "remove") }
    try forget(names, operation)
    do {
      var indices: [CInt] = []
      for name in names { if let link = try netlink.link(name) { indices.append(link.index) } }
      try netlink.deleteLinks(indices)
    } catch { throw .wrap(operation, error) }
    for name in names { taps[name] = nil }
  }

  /// Nobody may speak from taps of these names any more, be they there or not.
  private func forget(_ names: [String], _ operation: String) throws(NetworkError) {
    let bound = names.compactMap { taps[$0] }.filter { $0.binding != nil }
    guard !bound.isEmpty else { return }
    for tap in bound { taps[tap.name]?.binding = nil }
    try runOrApply(
      bound.map { HostRules.deleteBound($0.name, index: $0.index, $0.binding!) }.joined(), operation)
  }

  /// Where somebody has flushed our rules an element can be neither added nor taken: then all is put as it has to be.
  private func runOrApply(_ commands: String, _ operation: String) throws(NetworkError) {
    do { try nftables.run(commands, operation) } catch { try applyRules(operation) }
  }

  private func made(
    _ family: String, _ operation: String
  ) throws(NetworkError) -> (FamilyNetwork, AddressPlan) {
    guard let made = families[family]?.made else {
      throw NetworkError(
        .notFound, operation, cause: "family \(family) has no network on this host", remedy: "Make it first.")
    }
    return made
  }

  private func noTap(_ name: String, _ verb: String) -> NetworkError {
    NetworkError(
      .notFound, "\(verb) the network card \(name)", cause: "there is none", remedy: "Add it first.")
  }
}
