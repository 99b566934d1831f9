import CLinux
import Glibc

/// An IPv4 address and a UDP port.
public struct DatagramEndpoint: Hashable, Sendable, CustomStringConvertible {
  public var address: UInt32
  public var port: UInt16

  public init(address: UInt32, port: UInt16) {
    self.address = address
    self.port = port
  }

  /// `address`: four decimal numbers with dots, else EINVAL.
  public init(_ address: String, port: UInt16) throws(SystemError) {
    var parsed = in_addr()
    guard inet_pton(AF_INET, address, &parsed) == 1 else {
      throw SystemError("inet_pton", subject: address, errno: EINVAL)
    }
    self.init(address: UInt32(bigEndian: parsed.s_addr), port: port)
  }

  public var addressText: String {
    "\(address >> 24).\(address >> 16 & 255).\(address >> 8 & 255).\(address & 255)"
  }
  public var description: String { "\(addressText):\(port)" }
}

/// A UDP socket that never blocks.
public final class DatagramSocket: Sendable {
  /// What one receive can give.
  public static let receiveBytes = 65536
  /// UDP_MAX_SEGMENTS of Linux 4.18.
  public static let segmentsMax = 64
  public let descriptor: OwnedDescriptor

  /// Bound to `local` (port 0: the kernel chooses), with `bufferBytes` of buffer each way where the process may have
  /// that, else the system's. `isShared`: others may bind the same.
  public init(_ local: DatagramEndpoint, isShared: Bool, bufferBytes: CInt) throws(SystemError) {
    descriptor = OwnedDescriptor(taking: try systemCall("socket") { clinux_udp_socket() })
    if isShared { try systemCall("setsockopt(SO_REUSEADDR)") { clinux_udp_share(descriptor.raw) } }
    _ = clinux_udp_buffers(descriptor.raw, bufferBytes)
    try systemCall("bind", subject: "\(local)") {
      clinux_udp_bind(descriptor.raw, local.address, local.port)
    }
  }

  public func localPort() throws(SystemError) -> UInt16 {
    UInt16(try systemCall("getsockname") { clinux_udp_local_port(descriptor.raw) })
  }

  /// Multicast leaves by the interface with this address, and reaches members on this host too.
  public func sendMulticast(from address: UInt32, timeToLive: UInt8) throws(SystemError) {
    try systemCall(
      "setsockopt(IP_MULTICAST_IF)", subject: DatagramEndpoint(address: address, port: 0).addressText
    ) {
      clinux_udp_multicast_from(descriptor.raw, address, CInt(timeToLive))
    }
  }

  /// Becomes a member of the group on the interface with this address.
  public func join(group: UInt32, interface address: UInt32) throws(SystemError) {
    try systemCall(
      "setsockopt(IP_ADD_MEMBERSHIP)", subject: DatagramEndpoint(address: group, port: 0).addressText
    ) {
      clinux_udp_join(descriptor.raw, group, address)
    }
  }

  /// A receive may give many datagrams. False: this kernel can not.
  public func coalesce() -> Bool { clinux_udp_coalesce(descriptor.raw) == 0 }

  public enum Sent: Sendable {
    case done
    /// The buffers are full: later.
    case full
    /// Not taken as one call of many datagrams: send them one by one.
    case notSegmented
    /// Lost like a datagram on the way: no route, a filter, a receiver's port that is closed.
    case lost
  }

  /// Sends one datagram, or with `segment` > 0 datagrams of that size of which the last may be shorter.
  public func send(_ bytes: UnsafeRawBufferPointer, segment: Int = 0, to endpoint: DatagramEndpoint) -> Sent {
    while true {
      let sent = clinux_udp_send(
        descriptor.raw, endpoint.address, endpoint.port, bytes.baseAddress!, bytes.count, UInt16(segment))
      if sent >= 0 { return .done }
      switch errno {
      case EINTR: continue
      case EAGAIN, ENOBUFS, ENOMEM: return .full
      case EINVAL, EMSGSIZE, EIO, EOPNOTSUPP, ENOPROTOOPT: return segment > 0 ? .notSegmented : .lost
      default: return .lost
      }
    }
  }

  /// What one receive gave: datagrams of `segment` bytes, of which the last may be shorter.
  public struct Received: Sendable {
    public var bytes: Int
    public var segment: Int
    public var from: DatagramEndpoint
  }

  /// Nil: nothing is there. `buffer`: `receiveBytes` long. Errors that ICMP left on the socket are passed over.
  public func receive(into buffer: UnsafeMutableRawBufferPointer) -> Received? {
    var from = DatagramEndpoint(address: 0, port: 0)
    var segment: CInt = 0
    for _ in 0..<8 {
      let count = clinux_udp_receive(
        descriptor.raw, buffer.baseAddress!, buffer.count, &from.address, &from.port, &segment)
      if count >= 0 { return Received(bytes: count, segment: segment > 0 ? Int(segment) : count, from: from) }
      if errno == EAGAIN { return nil }
    }
    return nil
  }
}
