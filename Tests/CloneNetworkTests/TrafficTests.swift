import CloneNetwork
import LinuxSystem
import Testing

/// Who reaches whom, when everybody says who he is.
@Suite(.serialized) struct TrafficTests {
  @Test func siblingsOfOneHostReachEachOther() throws {
    let host = try TestHost()
    defer { host.close() }
    let dev = family("dev")
    try host.network.make(dev)
    let (parent, clone) = (try host.guest(dev, vmid: 0), try host.guest(dev, vmid: 1))
    try parent.send(
      ethernet(
        to: broadcast, from: parent.mac, type: 0x0806,
        arp(1, sender: parent.mac, parent.address, target: broadcast, clone.address)))
    try clone.sendUDP(to: parent, "behind the question")
    #expect(try clone.receive(milliseconds: 0) == nil, "the clone answers, and has nothing else to read")
    let answers = try parent.receive(upTo: "behind the question")
    #expect(answers.isEmpty)
    // The clone read the question above, after it had sent: its answer comes now.
    let answer = try #require(try parent.receive().flatMap(ParsedFrame.init))
    #expect(answer.type == 0x0806 && answer.from == clone.mac)
    try parent.sendUDP(to: clone, "hello")
    #expect(try clone.receive(upTo: "hello").isEmpty)
  }

  /// Not even a frame whose address nobody has is seen by others.
  @Test func framesForOthersAreNotSeen() throws {
    let host = try TestHost()
    defer { host.close() }
    let dev = family("dev")
    try host.network.make(dev)
    let guests = try (0...2).map { try host.guest(dev, vmid: $0) }
    try guests[0].send(
      guests[0].udpFrame(to: AddressPlan.mac(of: guests[0].plan.address(vmid: 9)!), guests[1].address, "lost")
    )
    try guests[0].sendUDP(to: guests[1], "yours")
    try guests[0].send(guests[0].udpFrame(to: broadcast, guests[0].plan.broadcast, "for all"))
    #expect(try guests[1].receive(upTo: "yours").isEmpty)
    #expect(try guests[1].receive(upTo: "for all").isEmpty)
    #expect(try guests[2].receive(upTo: "for all").isEmpty)
  }

  @Test func siblingsOfTwoHostsReachEachOther() throws {
    let (first, second) = try twoHosts()
    defer {
      first.close()
      second.close()
    }
    let here = family("dev", host: 1, hosts: 2)
    let there = family("dev", host: 2, hosts: 2)
    try first.network.make(here)
    try second.network.make(there)
    let (parent, clone) = (try first.guest(here, vmid: 0), try second.guest(there, vmid: 1))
    // To all, when nobody knows where who is; then, with that learnt, to one.
    try parent.send(parent.udpFrame(to: broadcast, parent.plan.broadcast, "to all"))
    #expect(try clone.receive(upTo: "to all").isEmpty)
    try clone.sendUDP(to: parent, "to the parent")
    #expect(try parent.receive(upTo: "to the parent").isEmpty)
    let large = String(repeating: "x", count: here.mtu - 28)
    try parent.sendUDP(to: clone, large)
    #expect(try clone.receive(upTo: large).isEmpty)

    // A host that is no peer any more hears nothing, and is not heard.
    try first.network.make(family("dev", host: 1, hosts: 1))
    try parent.send(parent.udpFrame(to: broadcast, parent.plan.broadcast, "after"))
    try clone.send(clone.udpFrame(to: broadcast, clone.plan.broadcast, "after"))
    try first.network.make(here)
    try parent.sendUDP(to: clone, "again there")
    try clone.sendUDP(to: parent, "again here")
    #expect(try clone.receive(upTo: "again there").isEmpty)
    #expect(try parent.receive(upTo: "again here").isEmpty)
  }

  /// A clone that only listens would not be found if one of its address had been elsewhere before.
  @Test func whoIsBoundIsAnnouncedToOtherHosts() throws {
    let (first, second) = try twoHosts()
    defer {
      first.close()
      second.close()
    }
    let (here, there) = (family("dev", host: 1, hosts: 2), family("dev", host: 2, hosts: 2))
    try first.network.make(here)
    try second.network.make(there)
    let parent = try first.guest(here, vmid: 0)
    let former = try second.guest(there, vmid: 1)
    try former.sendUDP(to: parent, "from there")
    #expect(try parent.receive(upTo: "from there").isEmpty)
    #expect(parent.announced[former.address] == former.mac)
    try second.network.removeTaps([former.tap])
    let now = try first.guest(here, vmid: 1)
    try parent.sendUDP(to: now, "to here")
    #expect(try now.receive(upTo: "to here").isEmpty)
    // And back: the host that it left hears of it.
    let other = try second.guest(there, vmid: 2)
    try first.network.removeTaps([now.tap])
    let again = try second.guest(there, vmid: 1)
    try parent.sendUDP(to: again, "to there")
    #expect(try again.receive(upTo: "to there").isEmpty)
    _ = other
  }

  /// Two families with the same addresses, on the same two hosts.
  @Test func familiesDoNotReachEachOther() throws {
    let (first, second) = try twoHosts()
    defer {
      first.close()
      second.close()
    }
    let names = ["red", "blue"]
    var guests: [[TestGuest]] = []
    for (index, name) in names.enumerated() {
      let vni = UInt32(index + 1)
      let here = family(name, vni: vni, host: 1, hosts: 2)
      let there = family(name, vni: vni, host: 2, hosts: 2)
      try first.network.make(here)
      try second.network.make(there)
      guests.append([
        try first.guest(here, vmid: 0), try first.guest(here, vmid: 1), try second.guest(there, vmid: 2),
      ])
    }
    let (red, blue) = (guests[0], guests[1])
    #expect(red[1].mac == blue[1].mac && red[1].address == blue[1].address)
    for (sender, receivers) in [(red[0], red), (blue[0], blue)] {
      let payload = sender === red[0] ? "red" : "blue"
      try sender.send(sender.udpFrame(to: broadcast, sender.plan.broadcast, payload))
      for receiver in receivers[1...] { try sender.sendUDP(to: receiver, "\(payload) to one") }
    }
    for (payload, receivers) in [("red", red), ("blue", blue)] {
      for receiver in receivers[1...] {
        #expect(try receiver.receive(upTo: payload).isEmpty)
        #expect(try receiver.receive(upTo: "\(payload) to one").isEmpty)
      }
    }
  }

  /// A warm slot: nothing comes from it, nothing goes to it; and so again when it is unbound.
  @Test func aTapThatIsNotBoundIsSilent() throws {
    let host = try TestHost()
    defer { host.close() }
    let dev = family("dev")
    try host.network.make(dev)
    let parent = try host.guest(dev, vmid: 0)
    let sibling = try host.guest(dev, vmid: 1)
    let tap = try host.network.addTap(vm: "slot", family: "dev").name
    let slot = try TestGuest(host, tap: tap, dev, vmid: 2)

    func speakAll(_ text: String) throws {
      try slot.sendUDP(to: parent, "slot: \(text)")
      try parent.send(parent.udpFrame(to: broadcast, parent.plan.broadcast, "all: \(text)"))
      try parent.sendUDP(to: slot, "one: \(text)")
      try sibling.sendUDP(to: parent, "sibling: \(text)")
    }
    try speakAll("early")
    #expect(try parent.receive(upTo: "sibling: early").isEmpty)
    try host.network.bind(tap: tap, mac: slot.mac, address: slot.address)
    try speakAll("bound")
    #expect(try parent.receive(upTo: "slot: bound").isEmpty)
    #expect(try parent.receive(upTo: "sibling: bound").isEmpty)
    #expect(try slot.receive(upTo: "all: bound").isEmpty, "what was said before is not in its queue")
    #expect(try slot.receive(upTo: "one: bound").isEmpty)
    try host.network.unbind(tap: tap)
    try speakAll("late")
    #expect(try parent.receive(upTo: "sibling: late").isEmpty)
    try host.network.bind(tap: tap, mac: slot.mac, address: slot.address)
    try parent.sendUDP(to: slot, "again")
    #expect(try slot.receive(upTo: "again").isEmpty)
  }

  /// Until it takes its own identity a clone speaks as its parent; the parent must not feel it.
  @Test func aCloneThatSpeaksAsItsParentDoesNotDisturbIt() throws {
    let host = try TestHost()
    defer { host.close() }
    let dev = family("dev")
    try host.network.make(dev)
    let guests = try (0...2).map { try host.guest(dev, vmid: $0) }
    let (parent, sibling, clone) = (guests[0], guests[1], guests[2])
    try clone.send(
      ethernet(
        to: broadcast, from: parent.mac, type: 0x0806,
        arp(2, sender: parent.mac, parent.address, target: parent.mac, parent.address)))
    try clone.send(parent.udpFrame(to: sibling.mac, sibling.address, "as the parent"))
    try sibling.sendUDP(to: parent, "for the parent")
    try clone.sendUDP(to: sibling, "as itself")
    #expect(try parent.receive(upTo: "for the parent").isEmpty)
    #expect(try sibling.receive(upTo: "as itself").isEmpty)
  }

  /// VXLAN is not sealed: who is no peer is not heard.
  @Test func strangersDoNotGetFramesIn() throws {
    let (first, second) = try twoHosts()
    defer {
      first.close()
      second.close()
    }
    let here = family("dev", host: 1, hosts: 2)
    try first.network.make(here)
    let parent = try first.guest(here, vmid: 0)
    let sibling = try first.guest(here, vmid: 1)
    // Flags with the VNI valid, VNI 7, a frame.
    func envelope(_ text: String) -> [UInt8] {
      [8, 0, 0, 0, 0, 0, 7, 0] + sibling.udpFrame(to: parent.mac, parent.address, text)
    }
    try second.tool("ip addr add 192.0.2.66/24 dev eth0")
    let stranger = try TestSocket(second.namespace, address: IPv4Address("192.0.2.66")!, port: 0)
    let peer = try TestSocket(second.namespace, address: IPv4Address("192.0.2.2")!, port: 0)
    try stranger.send(envelope("from a stranger"), to: here.underlay, port: here.port)
    try peer.send(envelope("from the peer"), to: here.underlay, port: here.port)
    #expect(try parent.receive(upTo: "from the peer").isEmpty)
  }
}
