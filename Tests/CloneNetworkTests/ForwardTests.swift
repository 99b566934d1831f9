import CloneNetwork
import Glibc
import LinuxSystem
import Testing

/// Ports of the host that lead to the device VM.
@Suite(.serialized) struct ForwardTests {
  let hostAddress = IPv4Address("198.51.100.1")!

  @Test func aPortLeadsToTheParentOnly() throws {
    let outside = try TestHost { outside in
      try runTool("ip -n \(outside) link add eth0 type veth peer name wan")
      try runTool("ip -n \(outside) addr add 198.51.100.2/24 dev eth0")
      // A client whose address is one of the family's.
      try runTool("ip -n \(outside) addr add 10.111.0.9/32 dev eth0")
      try runTool("ip -n \(outside) link set eth0 up")
    }
    let host = try TestHost { host in
      try runTool("ip -n \(outside.name) link set wan netns \(host)")
      try runTool("ip -n \(host) addr add 198.51.100.1/24 dev wan")
      try runTool("ip -n \(host) link set wan up")
      try runTool("ip -n \(host) route add 10.111.0.9/32 dev wan")
    }
    defer {
      host.close()
      outside.close()
    }
    let forwards: Set = [
      PortForward(.udp, hostPort: 9000, guestPort: 90), PortForward(.tcp, hostPort: 8080, guestPort: 80),
    ]
    let dev = family("dev", forwards: forwards)
    try host.network.make(dev)
    let parent = try host.guest(dev, vmid: 0)
    let clone = try host.guest(dev, vmid: 1)

    let clients = [
      (try TestSocket(outside.namespace, address: IPv4Address("198.51.100.2")!, port: 0), false),
      (try TestSocket(outside.namespace, address: IPv4Address("10.111.0.9")!, port: 0), true),
      (try TestSocket(host.namespace, port: 0), false),
    ]
    for (index, (client, isMasked)) in clients.enumerated() {
      try client.send("not forwarded", to: hostAddress, port: 9001)
      try client.send("question \(index)", to: hostAddress, port: 9000)
      let frame = try #require(try parent.receive())
      let question = try #require(ParsedFrame(frame)?.udp)
      #expect(question.payload == Array("question \(index)".utf8))
      #expect(question.to == parent.address && question.toPort == 90)
      #expect(
        !parent.plan.subnet.contains(question.from)
          && question.from.description.hasPrefix("169.254.") == isMasked)
      let gateway = AddressPlan.mac(of: parent.plan.gateway)
      try parent.send(
        parent.udpFrame(to: gateway, question.from, "answer \(index)", from: 90, port: question.fromPort))
      let answer = try #require(try client.receive(), "client \(index)")
      #expect(answer.text == "answer \(index)" && answer.from == hostAddress && answer.port == 9000)
    }

    // The parent may answer, not call.
    let listener = try TestSocket(outside.namespace, address: IPv4Address("198.51.100.2")!, port: 53)
    try parent.sendOutward(to: IPv4Address("198.51.100.2")!, port: 53, "call")
    try clients[0].0.send("last", to: hostAddress, port: 9000)
    #expect(try parent.receive(upTo: "last").isEmpty)
    #expect(try listener.receive(milliseconds: 0) == nil)

    try connectIsHeard(outside, parent)
    // The clone heard none of it; what comes to it by name of the host's port is not there for it.
    try parent.sendUDP(to: clone, "end")
    // The router asks all of the family who the parent is.
    #expect(try clone.receive(upTo: "end").allSatisfy { ParsedFrame($0)?.question?.wanted == parent.address })

    // Without the forward the port is the host's own again.
    let own = try TestSocket(host.namespace, port: 9000)
    try host.network.make(family("dev"))
    try clients[0].0.send("to the host", to: hostAddress, port: 9000)
    #expect(try own.receive()?.text == "to the host")
  }

  /// A TCP connection's first packet reaches port 80 of the parent.
  private func connectIsHeard(_ outside: TestHost, _ parent: TestGuest) throws {
    let address = hostAddress
    let client = try outside.namespace.run {
      let client = OwnedDescriptor(
        taking: try systemCall("socket") {
          socket(AF_INET, CInt(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue), 0)
        })
      var name = sockaddr_in()
      name.sin_family = sa_family_t(AF_INET)
      name.sin_addr.s_addr = address.number.bigEndian
      name.sin_port = UInt16(8080).bigEndian
      let result = withUnsafePointer(to: &name) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          connect(client.raw, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
        }
      }
      #expect(result == -1 && errno == EINPROGRESS)
      return client
    }
    let segment = try #require(try parent.receive().flatMap(ParsedFrame.init)?.ipv4(6))
    #expect(segment.to == parent.address && segment.payload[2...3] == [0, 80])
    #expect(segment.payload[13] & 0x3F == 2, "SYN")
    _ = client
  }
}
