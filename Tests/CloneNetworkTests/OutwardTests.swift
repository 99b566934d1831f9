import CloneNetwork
import Glibc
import LinuxSystem
import Testing

/// The way out, the way in, and what of a host is not to be reached by either.
///
///     guests ─ family ─ router ─ host 198.51.100.1 ─── outside 198.51.100.2, .3
@Suite(.serialized) struct OutwardTests {
  let hostAddress = IPv4Address("198.51.100.1")!
  let server = IPv4Address("198.51.100.2")!
  let otherServer = IPv4Address("198.51.100.3")!

  private func hostWithOutside() throws -> (TestHost, outside: TestHost) {
    let outside = try TestHost { outside in
      try runTool("ip -n \(outside) link add eth0 type veth peer name wan")
      try runTool("ip -n \(outside) addr add 198.51.100.2/24 dev eth0")
      try runTool("ip -n \(outside) addr add 198.51.100.3/24 dev eth0")
      try runTool("ip -n \(outside) link set eth0 up")
    }
    let host = try TestHost { host in
      try runTool("ip -n \(outside.name) link set wan netns \(host)")
      try runTool("ip -n \(host) addr add 198.51.100.1/24 dev wan")
      try runTool("ip -n \(host) link set wan up")
    }
    return (host, outside)
  }

  private func allow(_ subnets: String..., rate: UInt64? = nil) -> OutwardPolicy {
    OutwardPolicy(allowed: subnets.map { .init(IPv4Subnet($0)!) }, bytesPerSecondMax: rate)
  }

  /// The answer to what a guest says to a server outside; nil: the server does not get it.
  private func talk(_ guest: TestGuest, _ socket: TestSocket, _ address: IPv4Address, port: UInt16) throws
    -> Bool
  {
    let text = "\(guest.address) \(UInt32.random(in: 0 ..< .max))"
    try guest.sendOutward(to: address, port: port, text)
    guard let heard = try socket.receive(milliseconds: 500) else { return false }
    #expect(heard.text == text && heard.from == hostAddress)
    try socket.send("answer to \(text)", to: heard.from, port: heard.port)
    #expect(try guest.receive(upTo: "answer to \(text)").isEmpty)
    return true
  }

  @Test func onlyWhatIsAllowedIsReached() throws {
    let (host, outside) = try hostWithOutside()
    defer {
      host.close()
      outside.close()
    }
    let sockets = try [(server, 53), (server, 54), (otherServer, 53)].map {
      (
        address: $0.0, port: UInt16($0.1),
        socket: try TestSocket(outside.namespace, address: $0.0, port: UInt16($0.1))
      )
    }
    var dev = family("dev")
    try host.network.make(dev)
    let guest = try host.guest(dev, vmid: 1)
    let udp53 = OutwardPolicy.Service.transport(.udp, port: 53)
    for (outward, reached) in [
      (nil, [false, false, false]),
      (OutwardPolicy(allowed: []), [false, false, false]),
      (allow("0.0.0.0/0"), [true, true, true]),
      (allow("198.51.100.2"), [true, true, false]),
      (allow("203.0.113.0/24"), [false, false, false]),
      (OutwardPolicy(allowed: [.init(IPv4Subnet("198.51.100.0/24")!, udp53)]), [true, false, true]),
      (
        OutwardPolicy(allowed: [
          .init(IPv4Subnet("0.0.0.0/0")!, .transport(.tcp, port: nil)),
          .init(IPv4Subnet("0.0.0.0/0")!, .icmpEcho),
        ]), [false, false, false]
      ),
      (
        OutwardPolicy(allowed: [.init(IPv4Subnet("0.0.0.0/0")!, .transport(.udp, port: nil))]),
        [true, true, true]
      ),
      (allow("198.51.100.3"), [false, false, true]),
    ] {
      dev.outward = outward
      try host.network.make(dev)
      // Also connections that exist are cut where the list no longer has them.
      let answers = try sockets.map { try talk(guest, $0.socket, $0.address, port: $0.port) }
      #expect(answers == reached, "with \(String(describing: outward))")
    }
  }

  @Test func pingsAreAnsweredByTheGatewayAndAllowedHosts() throws {
    let (host, outside) = try hostWithOutside()
    defer {
      host.close()
      outside.close()
    }
    let echo = [OutwardPolicy.Destination(IPv4Subnet("198.51.100.2")!, .icmpEcho)]
    let dev = family("dev", outward: OutwardPolicy(allowed: echo))
    try host.network.make(dev)
    let guest = try host.guest(dev, vmid: 1)
    for address in [hostAddress, otherServer, guest.plan.gateway, server] {
      try guest.send(
        ethernet(
          to: AddressPlan.mac(of: guest.plan.gateway), from: guest.mac, type: 0x0800,
          ipv4(from: guest.address, to: address, transport: 1, echoRequest(1))))
    }
    for expected in [guest.plan.gateway, server] {
      let answer = try #require(try guest.receive().flatMap(ParsedFrame.init)?.ipv4(1))
      #expect(answer.from == expected && answer.payload[0] == 0)
    }
  }

  /// Both have the same addresses, the same ports, and speak at the same time.
  @Test func familiesWithTheSameAddressesAreToldApart() throws {
    let (host, outside) = try hostWithOutside()
    defer {
      host.close()
      outside.close()
    }
    let socket = try TestSocket(outside.namespace, address: server, port: 53)
    let guests = try ["red", "blue"].enumerated().map { index, name in
      let own = family(name, vni: UInt32(index + 1), outward: allow("0.0.0.0/0"))
      try host.network.make(own)
      return try host.guest(own, vmid: 1)
    }
    for (name, guest) in zip(["red", "blue"], guests) { try guest.sendOutward(to: server, port: 53, name) }
    var ports: Set<UInt16> = []
    for _ in guests {
      let heard = try #require(try socket.receive())
      ports.insert(heard.port)
      try socket.send("for \(heard.text)", to: heard.from, port: heard.port)
    }
    #expect(ports.count == 2)
    for (name, guest) in zip(["red", "blue"], guests) {
      #expect(try guest.receive(upTo: "for \(name)").isEmpty)
    }
  }

  /// The host's own services, by any of its addresses, from the bridge and through the router; other hosts'; and
  /// the other families' routers and forwarded ports.
  @Test func hostsAreNotReached() throws {
    let (host, outside) = try hostWithOutside()
    defer {
      host.close()
      outside.close()
    }
    try host.tool("ip addr add 192.0.2.1/32 dev lo")
    let service = try TestSocket(host.namespace, port: 7543)
    let outer = try TestSocket(outside.namespace, port: 7543)
    let vxlan = try TestSocket(outside.namespace, address: server, port: 4789)
    // The second server outside is another host of the family.
    var red = family("red", vni: 1, outward: allow("0.0.0.0/0"))
    red.peers = [otherServer]
    let blue = family(
      "blue", vni: 2, outward: allow("0.0.0.0/0"),
      forwards: [PortForward(.udp, hostPort: 9000, guestPort: 9000)])
    try host.network.make(red)
    try host.network.make(blue)
    let guest = try host.guest(red, vmid: 1)
    let blueParent = try host.guest(blue, vmid: 0)
    let links = try host.tool("ip -4 -o addr show").split(separator: "\n").compactMap { line in
      line.contains("sfh") ? IPv4Address(String(line.split(separator: " ")[3].split(separator: "/")[0])) : nil
    }
    #expect(links.count == 2)
    let addresses = [hostAddress, red.underlay, IPv4Address("127.0.0.1")!, guest.plan.gateway] + links
    for mac in try stationsOfTheHost(host) + [broadcast, AddressPlan.mac(of: guest.plan.gateway)] {
      for address in addresses {
        try guest.send(guest.udpFrame(to: mac, address, "to the host", port: 7543))
        try guest.send(guest.udpFrame(to: mac, address, "to blue", port: 9000))
      }
    }
    for address in links {
      try guest.sendOutward(to: IPv4Address(number: address.number + 1), port: 9000, "to blue's router")
    }
    try guest.sendOutward(to: otherServer, port: 7543, "to another host")
    try guest.sendOutward(to: server, port: 4789, "as a host")
    try guest.sendOutward(to: server, port: 7543, "allowed")
    // What was allowed, last of all, is there.
    #expect(try outer.receive()?.text == "allowed")
    for socket in [service, vxlan, outer] {
      let heard = try socket.receive(milliseconds: 0)
      #expect(heard == nil, "\(heard?.text ?? "") from \(String(describing: heard?.from))")
    }
    #expect(try blueParent.receive(milliseconds: 0) == nil)

    // Without the rules the host does answer: it was the rules.
    try host.tool("nft insert rule bridge snowfork input accept")
    try host.tool("nft insert rule inet snowfork input accept")
    for mac in try stationsOfTheHost(host) {
      try guest.send(guest.udpFrame(to: mac, hostAddress, "to the host", port: 7543))
    }
    try guest.sendOutward(to: hostAddress, port: 7543, "to the host")
    #expect(try service.receive()?.text == "to the host")
  }

  /// MAC addresses that the family's bridge takes for the host's.
  private func stationsOfTheHost(_ host: TestHost) throws -> [MACAddress] {
    try host.tool("bridge fdb show").split(separator: "\n").filter { $0.contains("permanent") }
      .compactMap { MACAddress(String($0.split(separator: " ")[0])) }.filter(\.isUnicast)
  }

  @Test func theRateIsLimitedInBothDirections() throws {
    let (host, outside) = try hostWithOutside()
    defer {
      host.close()
      outside.close()
    }
    let socket = try TestSocket(outside.namespace, address: server, port: 53)
    var dev = family("dev", outward: allow("0.0.0.0/0"))
    try host.network.make(dev)
    let guest = try host.guest(dev, vmid: 1)
    let (count, size) = (600, 1000)
    let rate: UInt64 = 10_000
    let text = String(repeating: "x", count: size)

    for limit in [nil, rate] {
      dev.outward = allow("0.0.0.0/0", rate: limit)
      try host.network.make(dev)
      let start = ContinuousClock.now
      // Of a bucket of 16 KiB, and what the rate has added until now; frames count with their headers.
      func most() -> Int {
        let seconds = (ContinuousClock.now - start) / .seconds(1)
        return limit == nil ? count : Int((16_384 + Double(rate) * seconds) / Double(size)) + 1
      }
      try guest.sendOutward(to: server, port: 53, "first")
      let first = try #require(try socket.receive())
      // So that the router knows where the guest is: it keeps few packets for whom it has to ask first.
      try socket.send("answer", to: first.from, port: first.port)
      #expect(try guest.receive(upTo: "answer").isEmpty)

      var sent = 0
      for _ in 0..<count { try guest.sendOutward(to: server, port: 53, text) }
      while sent < count, try socket.receive(milliseconds: limit == nil ? 10_000 : 0) != nil { sent += 1 }
      #expect(sent <= most() && sent > 0)
      #expect((sent == count) == (limit == nil))

      var received = 0
      for _ in 0..<count { try socket.send(text, to: first.from, port: first.port) }
      while received < count, try guest.receive(milliseconds: limit == nil ? 10_000 : 0) != nil {
        received += 1
      }
      #expect(received <= most() && received > 0)
      #expect((received == count) == (limit == nil))
    }
  }
}
