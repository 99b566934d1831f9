/// The network of a family, a device VM and all its clones, as one host has it.
public struct FamilyNetwork: Sendable, Equatable {
  /// Who it is: 1 to 100 letters, digits, `.`, `_` and `-`; the same on each host.
  public var family: String
  /// The VXLAN network identifier, 1 to 16,777,215: the same on each host, and of no other family there.
  public var vni: UInt32
  /// At least 8, at most 29 bits. Other families may have the same.
  public var subnet: IPv4Subnet
  /// This host's address, from which it sends to the others.
  public var underlay: IPv4Address
  /// The other hosts' addresses. Only from them frames are taken.
  public var peers: Set<IPv4Address>
  /// Bytes of an IP packet in the family, 1,280 to 65,485: at most the underlay's less 50.
  public var mtu: Int
  /// The UDP port of VXLAN, the same on each host.
  public var port: UInt16
  /// What VMs on this host may reach outside; nil: nothing, and there is no gateway.
  public var outward: OutwardPolicy?
  /// Ports of this host that lead to the device VM. They take precedence over what listens on the host itself.
  public var forwards: Set<PortForward>

  public init(
    family: String, vni: UInt32, subnet: IPv4Subnet, underlay: IPv4Address, peers: Set<IPv4Address> = [],
    mtu: Int = 1450, port: UInt16 = 4789, outward: OutwardPolicy? = nil, forwards: Set<PortForward> = []
  ) {
    self.family = family
    self.vni = vni
    self.subnet = subnet
    self.underlay = underlay
    self.peers = peers
    self.mtu = mtu
    self.port = port
    self.outward = outward
    self.forwards = forwards
  }

  /// It has a router on this host.
  var needsRouter: Bool { outward != nil || !forwards.isEmpty }

  /// Throws `.invalid` with the reason.
  func check() throws(NetworkError) -> AddressPlan {
    func invalid(_ cause: String, _ remedy: String) -> NetworkError {
      NetworkError(.invalid, "make the network of family \(family)", cause: cause, remedy: remedy)
    }
    guard isName(family) else {
      throw invalid("the name has other characters", "Use 1 to 100 of a-z, A-Z, 0-9, dot, _ and -.")
    }
    guard let plan = AddressPlan(subnet) else {
      throw invalid("\(subnet) is too small or too large", "Take one of 8 to 29 bits.")
    }
    guard (1...0xFF_FFFF).contains(vni) else {
      throw invalid("\(vni) is no VXLAN network identifier", "Take 1 to 16777215.")
    }
    guard (1280...65_485).contains(mtu) else { throw invalid("an MTU of \(mtu)", "Take 1280 to 65485.") }
    guard port != 0 else { throw invalid("port 0", "Take 4789.") }
    guard !peers.contains(underlay) else {
      throw invalid("\(underlay) is this host and another one", "Give the others' addresses as peers.")
    }
    let hostPorts = forwards.map { [$0.transport.rawValue, "\($0.hostPort)"] }
    guard Set(hostPorts).count == hostPorts.count else {
      throw invalid("a host port is forwarded twice", "Name each port once.")
    }
    guard forwards.allSatisfy({ $0.hostPort != 0 && $0.guestPort != 0 }) else {
      throw invalid("port 0 is forwarded", "Take 1 to 65535.")
    }
    return plan
  }
}

/// A name that may stand in an interface's alias and in a rule: 1 to 100 of `A-Z a-z 0-9 . _ -`.
func isName(_ text: String) -> Bool {
  (1...100).contains(text.utf8.count)
    && text.utf8.allSatisfy {
      switch $0 {
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"):
        true
      default: false
      }
    }
}

public enum Transport: String, Sendable {
  case tcp, udp
}

/// What the VMs of a family on one host may reach outside, and how much of it. Never this host, and never another
/// one of the family's hosts, whatever the list says.
public struct OutwardPolicy: Sendable, Equatable {
  /// An empty list denies all.
  public var allowed: [Destination]
  /// Bytes a second, for all VMs of the family on this host together, in each direction; nil: no limit.
  public var bytesPerSecondMax: UInt64?

  public init(allowed: [Destination], bytesPerSecondMax: UInt64? = nil) {
    self.allowed = allowed
    self.bytesPerSecondMax = bytesPerSecondMax
  }

  public struct Destination: Sendable, Hashable {
    public var subnet: IPv4Subnet
    /// Nil: every protocol, and every port of it.
    public var service: Service?

    public init(_ subnet: IPv4Subnet, _ service: Service? = nil) {
      self.subnet = subnet
      self.service = service
    }
  }

  public enum Service: Sendable, Hashable {
    case icmpEcho
    /// Port nil: every port.
    case transport(Transport, port: UInt16?)
  }
}

/// A port of the host that leads to a port of the device VM, never of a clone.
public struct PortForward: Sendable, Hashable {
  public var transport: Transport
  public var hostPort: UInt16
  public var guestPort: UInt16

  public init(_ transport: Transport, hostPort: UInt16, guestPort: UInt16) {
    self.transport = transport
    self.hostPort = hostPort
    self.guestPort = guestPort
  }
}
