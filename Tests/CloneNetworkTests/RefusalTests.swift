import CloneNetwork
import LinuxSystem
import Testing

/// What is refused, and what the user reads.
@Suite(.serialized) struct RefusalTests {
  @Test func familiesThatMakeNoSense() throws {
    let host = try TestHost()
    defer { host.close() }
    func refused(_ change: (inout FamilyNetwork) -> Void, _ text: String) {
      var dev = family("dev")
      change(&dev)
      let error = #expect(throws: NetworkError.self) { try host.network.make(dev) }
      #expect(error?.code == .invalid)
      #expect(error?.description == "cannot make the network of family \(dev.family): \(text)")
    }
    refused(
      { $0.family = "a b" }, "the name has other characters. Use 1 to 100 of a-z, A-Z, 0-9, dot, _ and -.")
    refused({ $0.family = "" }, "the name has other characters. Use 1 to 100 of a-z, A-Z, 0-9, dot, _ and -.")
    refused({ $0.vni = 0 }, "0 is no VXLAN network identifier. Take 1 to 16777215.")
    refused({ $0.vni = 1 << 24 }, "16777216 is no VXLAN network identifier. Take 1 to 16777215.")
    refused(
      { $0.subnet = IPv4Subnet("10.0.0.0/30")! },
      "10.0.0.0/30 is too small or too large. Take one of 8 to 29 bits.")
    refused({ $0.mtu = 1279 }, "an MTU of 1279. Take 1280 to 65485.")
    refused({ $0.port = 0 }, "port 0. Take 4789.")
    refused(
      { $0.peers = [$0.underlay] },
      "192.0.2.1 is this host and another one. Give the others' addresses as peers.")
    refused(
      {
        $0.forwards = [
          PortForward(.tcp, hostPort: 80, guestPort: 80), PortForward(.tcp, hostPort: 80, guestPort: 81),
        ]
      }, "a host port is forwarded twice. Name each port once.")
    refused(
      { $0.forwards = [PortForward(.tcp, hostPort: 0, guestPort: 80)] },
      "port 0 is forwarded. Take 1 to 65535.")
    host.expectNothingLeft()
  }

  @Test func whatAnotherFamilyHas() throws {
    let host = try TestHost()
    defer { host.close() }
    let forward: Set = [PortForward(.tcp, hostPort: 8080, guestPort: 80)]
    try host.network.make(family("red", vni: 1, forwards: forward))
    for (blue, text) in [
      (family("blue", vni: 1), "family red has VNI 1. Take another one."),
      (
        family("blue", vni: 2, forwards: forward),
        "tcp port 8080 of this host leads to family red. Forward another one."
      ),
    ] {
      let error = #expect(throws: NetworkError.self) { try host.network.make(blue) }
      #expect(error?.code == .inUse)
      #expect(error?.description == "cannot make the network of family blue: \(text)")
    }
    #expect(host.network.families == ["red"])
    // A successor knows it from the kernel.
    let successor = try HostNetwork(namespace: "/run/netns/\(host.name)")
    #expect(throws: NetworkError.self) { try successor.make(family("blue", vni: 2, forwards: forward)) }
    try successor.make(family("blue", vni: 2, forwards: [PortForward(.udp, hostPort: 8080, guestPort: 80)]))
  }

  @Test func bindings() throws {
    let host = try TestHost()
    defer { host.close() }
    try host.network.make(family("dev"))
    let first = try host.network.addTap(vm: "dev.1", family: "dev").name
    let second = try host.network.addTap(vm: "dev.2", family: "dev").name
    func bind(_ tap: String, _ mac: String, _ address: String) throws {
      try host.network.bind(tap: tap, mac: MACAddress(mac)!, address: IPv4Address(address)!)
    }
    func refused(_ code: NetworkError.Code, _ tap: String, _ mac: String, _ address: String) {
      let error = #expect(throws: NetworkError.self) { try bind(tap, mac, address) }
      #expect(error?.code == code)
    }
    try bind(first, "02:5f:0a:6f:00:03", "10.111.0.3")
    refused(.inUse, second, "02:5f:0a:6f:00:03", "10.111.0.4")
    refused(.inUse, second, "02:5f:0a:6f:00:04", "10.111.0.3")
    for address in ["10.111.0.0", "10.111.0.1", "10.111.255.255", "10.112.0.2"] {
      refused(.invalid, second, "02:5f:0a:6f:00:04", address)
    }
    for mac in ["01:5f:0a:6f:00:04", "00:00:00:00:00:00", "02:5f:0a:6f:00:01"] {
      refused(.invalid, second, mac, "10.111.0.4")
    }
    refused(.notFound, "sftaaaaaaaaaaaa", "02:5f:0a:6f:00:04", "10.111.0.4")
    #expect(host.network.taps(family: "dev").map(\.binding?.address) == [IPv4Address("10.111.0.3"), nil])
    // What one gives up another may have.
    try bind(first, "02:5f:0a:6f:00:05", "10.111.0.5")
    try bind(second, "02:5f:0a:6f:00:03", "10.111.0.3")
    try host.network.removeTaps([first])
    try host.network.removeTaps([first])
    try bind(second, "02:5f:0a:6f:00:05", "10.111.0.5")
  }

  @Test func tapsWithoutAFamily() throws {
    let host = try TestHost()
    defer { host.close() }
    for (vm, family, code) in [("dev.1", "dev", NetworkError.Code.notFound), ("dev 1", "dev", .invalid)] {
      let error = #expect(throws: NetworkError.self) { try host.network.addTap(vm: vm, family: family) }
      #expect(error?.code == code)
    }
    let error = #expect(throws: NetworkError.self) { try host.network.removeTaps(["eth0"]) }
    #expect(error?.code == .notFound)
  }

  @Test func noNamespace() {
    let error = #expect(throws: NetworkError.self) { try HostNetwork(namespace: "/run/netns/nobody") }
    #expect(error?.description.hasPrefix("cannot open the host's network: open of /run/netns/nobody") == true)
  }
}
