import CloneNetwork
import LinuxSystem
import Testing

/// What is made in the kernel: once, again, by another process, halfway; and that it goes.
@Suite(.serialized) struct HostNetworkTests {
  let everywhere = OutwardPolicy(allowed: [.init(IPv4Subnet("0.0.0.0/0")!)], bytesPerSecondMax: 1_000_000)

  /// All that a host shows of its network, without what changes by itself.
  private func picture(_ host: TestHost) throws -> [String] {
    let namespaces = try host.routerNamespaces
    return try [
      host.tool("ip -o link show"), host.tool("bridge fdb show"), host.tool("bridge -d link show"),
      host.rules,
      host.routes, host.tool("ip -4 -o addr show"),
    ] + namespaces
      + namespaces.flatMap {
        [
          try runTool("ip -n \($0) -o link show"), try runTool("ip -n \($0) -4 -o addr show"),
          try runTool("ip -n \($0) route show"), try runTool("ip netns exec \($0) nft list ruleset"),
          try runTool("ip netns exec \($0) tc qdisc show"),
        ]
      }
  }

  @Test func makingAgainChangesNothing() throws {
    let host = try TestHost()
    defer { host.close() }
    let dev = family(
      "dev", hosts: 3, outward: everywhere, forwards: [PortForward(.tcp, hostPort: 8080, guestPort: 80)])
    try host.network.make(dev)
    let tap = try host.network.addTap(vm: "dev.1", family: "dev", owner: 65_534)
    let mac = MACAddress("02:5f:0a:6f:00:03")!
    let address = IPv4Address("10.111.0.3")!
    try host.network.bind(tap: tap.name, mac: mac, address: address)
    let before = try picture(host)
    try host.network.make(dev)
    #expect(
      try host.network.addTap(vm: "dev.1", family: "dev").binding == TapBinding(mac: mac, address: address))
    try host.network.bind(tap: tap.name, mac: mac, address: address)
    #expect(try picture(host) == before)

    // Nor does another process that finds it.
    let successor = try HostNetwork(namespace: "/run/netns/\(host.name)")
    #expect(successor.families == ["dev"])
    #expect(successor.taps(family: "dev").map(\.binding) == [TapBinding(mac: mac, address: address)])
    try successor.make(dev)
    try successor.bind(tap: tap.name, mac: mac, address: address)
    try successor.sweep(keeping: ["dev"], vms: ["dev.1"])
    #expect(try picture(host) == before)
    try host.network.remove(family: "dev")
    host.expectNothingLeft()
    try host.network.remove(family: "dev")
  }

  /// What somebody has damaged is as it was when the family is made again.
  @Test func makingAgainRepairs() throws {
    let host = try TestHost()
    defer { host.close() }
    let dev = family("dev", hosts: 3, outward: everywhere)
    try host.network.make(dev)
    let guest = try host.guest(dev, vmid: 1)
    let before = try picture(host)
    let names = try host.interfaces
    let bridge = try #require(names.first { $0.hasPrefix("sfb") })
    let vxlan = try #require(names.first { $0.hasPrefix("sfx") })
    let router = try #require(try host.routerNamespaces.first)
    for damage in [
      "ip link set \(bridge) down", "ip link set \(bridge) mtu 1300", "ip link set \(vxlan) nomaster",
      "ip link delete \(vxlan)", "bridge fdb delete 00:00:00:00:00:00 dev \(vxlan) dst 192.0.2.3",
      "bridge fdb append 00:00:00:00:00:00 dev \(vxlan) dst 192.0.2.9", "ip link set \(guest.tap) nomaster",
      "nft flush chain bridge snowfork from_tap", "nft delete table inet snowfork",
      "nft flush ruleset", "nft flush set bridge snowfork bound", "nft flush set bridge snowfork paths",
      "nft flush set inet snowfork peers", "ip netns exec \(router) ip link delete outer",
      "ip netns exec \(router) ip link delete inner", "ip netns exec \(router) nft flush ruleset",
      "ip netns exec \(router) ip route flush table main",
      "ip netns exec \(router) tc qdisc del dev inner root",
    ] {
      try host.tool(damage)
      #expect(try known(picture(host)) != known(before), "\(damage) did no damage")
      try host.network.make(dev)
      _ = try host.network.addTap(vm: "dev.1", family: "dev")
      for (now, then) in zip(known(try picture(host)), known(before)) {
        #expect(now == then, "not repaired: \(damage)")
      }
    }
  }

  /// Interfaces made anew have other numbers and addresses of their own, and may stand elsewhere in a list.
  private func known(_ picture: [String]) -> [[String]] {
    picture.map { list in
      list.split(separator: "\n").map { line in
        line.split(separator: " ").map { String($0.split(separator: "@")[0]) }.filter { word in
          // `12:`, at the front.
          MACAddress(word) == nil && !(word.hasSuffix(":") && Int(word.dropLast()) != nil)
        }.joined(separator: " ")
      }.sorted()
    }
  }

  @Test func aChangedFamilyIsChanged() throws {
    let host = try TestHost()
    defer { host.close() }
    try host.network.make(family("dev", vni: 7, hosts: 2, outward: everywhere))
    let vxlan = try #require(try host.interfaces.first { $0.hasPrefix("sfx") })
    #expect(try host.tool("ip -d link show \(vxlan)").contains("vxlan id 7 "))
    var changed = family("dev", vni: 8, hosts: 3)
    changed.port = 4790
    changed.mtu = 8000
    try host.network.make(changed)
    let shown = try host.tool("ip -d link show \(vxlan)")
    #expect(shown.contains("vxlan id 8 ") && shown.contains("dstport 4790") && shown.contains("mtu 8000"))
    let stations = try host.tool("bridge fdb show dev \(vxlan)")
    #expect(stations.contains("dst 192.0.2.2") && stations.contains("dst 192.0.2.3"))
    #expect(try host.routerNamespaces.isEmpty && !host.interfaces.contains { $0.hasPrefix("sfh") })
    #expect(try host.forwarding == "0")
    try host.network.make(family("dev", vni: 8, host: 1, hosts: 1))
    #expect(try !host.tool("bridge fdb show dev \(vxlan)").contains("dst 192.0.2"))
  }

  /// A crash at any moment: whatever is there, a sweep by another process leaves what lives.
  @Test func aSweepTakesWhatNobodyOwns() throws {
    let host = try TestHost()
    defer { host.close() }
    let dev = family("dev", vni: 1, hosts: 2, outward: everywhere)
    let forwards: Set = [PortForward(.udp, hostPort: 53, guestPort: 53)]
    let dead = family("dead", vni: 2, hosts: 3, outward: everywhere, forwards: forwards)
    try host.network.make(dev)
    let parent = try host.guest(dev, vmid: 0)
    let before = try picture(host)
    try host.network.make(dead)
    _ = try host.guest(dead, vmid: 0)
    _ = try host.guest(dev, vmid: 1)
    // Half-made: no alias, no bridge; an element without its tap; a router without interfaces.
    try host.tool("ip link add sfbaaaaaaaaaaaa type bridge")
    try host.tool("ip link add sfxaaaaaaaaaaaa type vxlan id 99 dstport 4789")
    try host.tool("ip link add sfhaaaaaaaaaaaa type veth peer name sfvaaaaaaaaaaaa")
    try host.tool("ip tuntap add sftaaaaaaaaaaaa mode tap")
    try host.tool(
      "nft add element bridge snowfork bound { \"sftbbbbbbbbbbbb\" . 02:5f:00:00:00:01 . 10.0.0.1 }")
    _ = try NetworkNamespace.make(named: "sfr-\(try host.namespace.number)-aaaaaaaaaaaa")
    // Not ours, though it looks a little like it.
    try host.tool("ip link add sfb0 type bridge")

    try HostNetwork(namespace: "/run/netns/\(host.name)").sweep(
      keeping: ["dev"], vms: [host.network.taps(family: "dev")[0].vm])
    #expect(try host.interfaces.contains("sfb0"))
    try host.tool("ip link delete sfb0")
    for (now, then) in zip(known(try picture(host)), known(before)) { #expect(now == then) }
    _ = parent

    try HostNetwork(namespace: "/run/netns/\(host.name)").sweep(keeping: [])
    host.expectNothingLeft()
  }

  /// A family that can not be made is not there, and others are as they were.
  @Test func whatFailsLeavesNothing() throws {
    let host = try TestHost()
    defer { host.close() }
    try host.tool("ip link add other type vxlan id 9 dstport 4789")
    defer { _ = try? host.tool("ip link delete other") }
    let error = #expect(throws: NetworkError.self) {
      try host.network.make(family("dev", vni: 9, outward: everywhere))
    }
    #expect(error?.code == .inUse)
    #expect(
      error?.description
        == "cannot make the network of family dev: another VXLAN interface of this host has VNI 9. Take another one."
    )
    try host.tool("ip link delete other")
    host.expectNothingLeft()
  }

  /// Somebody flushes the host's rules, as a restart of its firewall does: calls still do what they say.
  @Test(arguments: ["nft flush ruleset", "nft flush set bridge snowfork bound"])
  func rulesThatWereFlushedAreNoHindrance(flush: String) throws {
    let host = try TestHost()
    defer { host.close() }
    let dev = family("dev", outward: everywhere)
    try host.network.make(dev)
    let (parent, clone) = (try host.guest(dev, vmid: 0), try host.guest(dev, vmid: 1))
    let next = AddressPlan(dev.subnet)!.address(vmid: 2)!
    try host.tool(flush)
    try host.network.bind(tap: clone.tap, mac: AddressPlan.mac(of: next), address: next)
    try clone.sendUDP(to: parent, "with the old address")
    try host.network.bind(tap: clone.tap, mac: clone.mac, address: clone.address)
    try clone.sendUDP(to: parent, "with its own")
    #expect(try parent.receive(upTo: "with its own").isEmpty)
    try host.tool(flush)
    try host.network.unbind(tap: clone.tap)
    try host.tool(flush)
    try host.network.removeTaps([parent.tap, clone.tap])
    try host.tool(flush)
    try host.network.remove(family: "dev")
    host.expectNothingLeft()
  }

  @Test func callsFromManyThreads() throws {
    let host = try TestHost()
    defer { host.close() }
    let network = host.network
    let threads = try (0..<4).map { number in
      try NamedThread("caller \(number)") {
        do {
          for round in 0..<5 {
            let own = family("dev\(number)", vni: UInt32(number + 1), hosts: 2)
            try network.make(own)
            for vmid in 1...5 {
              let tap = try network.addTap(vm: "dev\(number).\(vmid)", family: own.family)
              let address = AddressPlan(own.subnet)!.address(vmid: vmid)!
              try network.bind(tap: tap.name, mac: AddressPlan.mac(of: address), address: address)
            }
            #expect(network.taps(family: own.family).count == 5)
            if round < 4 { try network.remove(family: own.family) }
          }
        } catch { Issue.record("\(error)") }
      }
    }
    for thread in threads { thread.join() }
    #expect(network.families == (0..<4).map { "dev\($0)" })
    #expect(try host.interfaces.count { $0.hasPrefix("sft") } == 20)
  }
}
