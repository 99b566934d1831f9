import CloneNetwork
import Testing

/// What a guest says in another's name, or of another kind than it may, leaves its tap neither for a sibling nor for
/// the host.
@Suite(.serialized) struct SpoofingTests {
  enum Forgery: String, CaseIterable, CustomTestStringConvertible {
    case macOfAnother, macOfNobody, addressOfAnother, addressOfNobody, addressOutside, noAddress
    case arpInAnothersName, arpFromAnothersMAC, arpForTheGateway, arpWithAnothersFrame, arpOfAnotherKind
    case routerAdvertisement, neighbourAdvertisement
    case dhcpOffer, dhcpRequest
    case vlanTag, vlanTagZero, serviceTag, twoTags
    case linkLayerDiscovery, spanningTree, unknownType, experimental
    var testDescription: String { rawValue }
  }

  private func frame(_ forgery: Forgery, from guest: TestGuest, victim: TestGuest) -> Frame {
    let nobody = guest.plan.address(vmid: 77)!
    let nobodysMAC = MACAddress("02:5f:00:00:00:77")!
    let payload = udp(from: 5000, to: 6000, Array("forged".utf8))
    func packet(_ source: IPv4Address, _ mac: MACAddress? = nil) -> Frame {
      ethernet(
        to: broadcast, from: mac ?? guest.mac, type: 0x0800,
        ipv4(from: source, to: guest.plan.broadcast, transport: 17, payload))
    }
    func claim(_ mac: MACAddress, _ address: IPv4Address, frame: MACAddress? = nil) -> Frame {
      ethernet(
        to: broadcast, from: frame ?? guest.mac, type: 0x0806,
        arp(2, sender: mac, address, target: broadcast, address))
    }
    func dhcp(from source: UInt16, to port: UInt16) -> Frame {
      ethernet(
        to: broadcast, from: guest.mac, type: 0x0800,
        ipv4(
          from: guest.address, to: IPv4Address("255.255.255.255")!, transport: 17,
          udp(from: source, to: port, [2, 1, 6, 0] + [UInt8](repeating: 0, count: 236))))
    }
    let honest = packet(guest.address)
    switch forgery {
    case .macOfAnother: return packet(guest.address, victim.mac)
    case .macOfNobody: return packet(guest.address, nobodysMAC)
    case .addressOfAnother: return packet(victim.address)
    case .addressOfNobody: return packet(nobody)
    case .addressOutside: return packet(IPv4Address("192.0.2.1")!)
    case .noAddress: return packet(IPv4Address("0.0.0.0")!)
    case .arpInAnothersName: return claim(guest.mac, victim.address)
    case .arpFromAnothersMAC: return claim(victim.mac, guest.address)
    case .arpForTheGateway: return claim(guest.mac, guest.plan.gateway)
    case .arpWithAnothersFrame: return claim(guest.mac, guest.address, frame: victim.mac)
    case .arpOfAnotherKind:
      // InARP, operation 8.
      return ethernet(
        to: broadcast, from: guest.mac, type: 0x0806,
        arp(8, sender: guest.mac, guest.address, target: broadcast, guest.address))
    case .routerAdvertisement:
      return ethernet(to: broadcast, from: guest.mac, type: 0x86DD, neighbourDiscovery(type: 134))
    case .neighbourAdvertisement:
      return ethernet(to: broadcast, from: guest.mac, type: 0x86DD, neighbourDiscovery(type: 136))
    case .dhcpOffer: return dhcp(from: 67, to: 68)
    case .dhcpRequest: return dhcp(from: 68, to: 67)
    case .vlanTag: return tagged(honest, vlan: 5)
    case .vlanTagZero: return tagged(honest, vlan: 0)
    case .serviceTag: return tagged(honest, vlan: 5, type: 0x88A8)
    case .twoTags: return tagged(tagged(honest, vlan: 5), vlan: 6)
    case .linkLayerDiscovery:
      return ethernet(
        to: MACAddress("01:80:c2:00:00:0e")!, from: guest.mac, type: 0x88CC, [UInt8](repeating: 0, count: 46))
    case .spanningTree:
      return ethernet(
        to: MACAddress("01:80:c2:00:00:00")!, from: guest.mac, type: 38,
        [0x42, 0x42, 3] + [UInt8](repeating: 0, count: 43))
    case .unknownType:
      return ethernet(to: broadcast, from: guest.mac, type: 0x9000, [UInt8](repeating: 0, count: 46))
    case .experimental:
      return ethernet(to: victim.mac, from: guest.mac, type: 0x88B5, [UInt8](repeating: 0, count: 46))
    }
  }

  @Test(arguments: Forgery.allCases)
  func itDoesNotLeaveTheTap(_ forgery: Forgery) throws {
    let host = try TestHost()
    defer { host.close() }
    let dev = family("dev")
    try host.network.make(dev)
    let guests = try (0...2).map { try host.guest(dev, vmid: $0) }
    let (parent, victim, liar) = (guests[0], guests[1], guests[2])
    let forged = frame(forgery, from: liar, victim: victim)

    for _ in 0..<3 { try liar.send(forged) }
    try liar.send(liar.udpFrame(to: broadcast, liar.plan.broadcast, "honest"))
    #expect(try victim.receive(upTo: "honest").isEmpty)
    #expect(try parent.receive(upTo: "honest").isEmpty)

    // Nothing was learnt from it either: the victim still gets what is for it.
    try parent.sendUDP(to: victim, "yours")
    #expect(try victim.receive(upTo: "yours").isEmpty)
    #expect(try liar.receive(milliseconds: 0) == nil)

    // The same frame does arrive where nothing is filtered: so it was the filter. (Link-local frames of layer 2 end at
    // every bridge.)
    try host.tool("nft insert rule bridge snowfork prerouting accept")
    try liar.send(forged)
    try liar.send(liar.udpFrame(to: broadcast, liar.plan.broadcast, "honest"))
    #expect(try victim.receive(upTo: "honest").isEmpty == (forgery == .linkLayerDiscovery))
  }

  /// A name of a tap that is gone gives no right to the next one.
  @Test func aNewTapHasNothingOfTheOldOne() throws {
    let host = try TestHost()
    defer { host.close() }
    let dev = family("dev")
    try host.network.make(dev)
    let parent = try host.guest(dev, vmid: 0)
    let sibling = try host.guest(dev, vmid: 2)
    let tap: String
    do {
      let clone = try host.guest(dev, vmid: 1)
      tap = clone.tap
      try clone.sendUDP(to: parent, "first")
      #expect(try parent.receive(upTo: "first").isEmpty)
      // Behind our back, as a crash of the kernel's module or an operator would.
    }
    try host.tool("ip link delete \(tap)")
    #expect(try host.network.addTap(vm: "dev.1", family: "dev").binding == nil)
    let clone = try TestGuest(host, tap: tap, dev, vmid: 1)
    try clone.sendUDP(to: parent, "second")
    try sibling.sendUDP(to: parent, "sibling")
    #expect(try parent.receive(upTo: "sibling").isEmpty)
  }
}
