/// Destinations and forwarded ports as operators write them.

extension OutwardPolicy.Destination: LosslessStringConvertible {
  /// `10.0.0.0/8`, `10.0.0.7:443`, `10.0.0.7:53/udp`, `0.0.0.0/0:tcp`, `10.0.0.0/8:icmp`. Nil: it is none of these.
  public init?(_ text: String) {
    let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
    guard let subnet = IPv4Subnet(String(parts[0])) else { return nil }
    self.init(subnet)
    guard parts.count == 2 else { return }
    switch parts[1] {
    case "icmp": service = .icmpEcho
    case "tcp": service = .transport(.tcp, port: nil)
    case "udp": service = .transport(.udp, port: nil)
    default:
      guard let (port, transport) = portAndTransport(parts[1]) else { return nil }
      service = .transport(transport, port: port)
    }
  }

  public var description: String {
    switch service {
    case nil: "\(subnet)"
    case .icmpEcho: "\(subnet):icmp"
    case .transport(let transport, nil): "\(subnet):\(transport.rawValue)"
    case .transport(let transport, let port?): "\(subnet):\(port)/\(transport.rawValue)"
    }
  }
}

extension PortForward: LosslessStringConvertible {
  /// `8080:80` or `8080:80/udp`: the host's port and the VM's. Nil: it is neither.
  public init?(_ text: String) {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    guard parts.count == 2, let host = UInt16(parts[0]), host > 0,
      let (guest, transport) = portAndTransport(parts[1])
    else { return nil }
    self.init(transport, hostPort: host, guestPort: guest)
  }

  public var description: String { "\(hostPort):\(guestPort)/\(transport.rawValue)" }
}

/// `443` or `443/udp`.
private func portAndTransport(_ text: Substring) -> (UInt16, Transport)? {
  let parts = text.split(separator: "/", omittingEmptySubsequences: false)
  guard parts.count <= 2, let port = UInt16(parts[0]), port > 0 else { return nil }
  guard parts.count == 2 else { return (port, .tcp) }
  return Transport(rawValue: String(parts[1])).map { (port, $0) }
}
