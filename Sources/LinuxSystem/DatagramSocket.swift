import CLinux
import Glibc

/// An IPv4 address and UDP port.
public struct DatagramAddress: Hashable, Sendable {
  /// Network byte order.
  public var address: UInt32
  public var port: UInt16

  /// Nil: `text` is no IPv4 address. `port` in host byte order.
  public init?(_ text: String, port: UInt16) {
    var parsed = in_addr()
    guard inet_pton(AF_INET, text, &parsed) == 1 else { return nil }
    address = parsed.s_addr
    self.port = port.bigEndian
  }

  init(address: UInt32, port: UInt16) {
    self.address = address
    self.port = port
  }

  /// Host byte order.
  public var hostPort: UInt16 { UInt16(bigEndian: port) }
}

/// A non-blocking UDP socket. Kernels since 5.0 take and give many datagrams of one size in one call.
public final class DatagramSocket: Sendable {
  public let descriptor: OwnedDescriptor
  private static let bufferBytes: CInt = 8 << 20

  /// Port 0: the kernel chooses. `isShared`: others may bind the same (a multicast group's receivers).
  public init(_ address: DatagramAddress, isShared: Bool = false) throws(SystemError) {
    descriptor = OwnedDescriptor(
      taking: try systemCall("bind", subject: "UDP port \(address.hostPort)") {
        clinux_datagram_socket(address.address, address.port, Self.bufferBytes, isShared ? 1 : 0)
      })
  }

  /// Host byte order.
  public func port() throws(SystemError) -> UInt16 {
    UInt16(
      bigEndian: UInt16(
        truncatingIfNeeded: try systemCall("getsockname") { clinux_datagram_port(descriptor.raw) }))
  }

  public func join(group: DatagramAddress, local: DatagramAddress) throws(SystemError) {
    try systemCall("setsockopt(IP_ADD_MEMBERSHIP)") {
      clinux_datagram_join(descriptor.raw, group.address, local.address)
    }
  }

  /// What is sent to a group leaves by the interface of `local` and crosses at most `hops` routers.
  public func sendsMulticast(by local: DatagramAddress, hops: Int) throws(SystemError) {
    try systemCall("setsockopt(IP_MULTICAST_IF)") {
      clinux_datagram_multicast(descriptor.raw, local.address, CInt(hops))
    }
  }

  public enum SendOutcome: Sendable {
    case sent
    /// The socket's buffer is full: later again.
    case full
    /// Segmentation offload is not to be had here: one datagram at a time.
    case noSegmentation
    /// Lost on the way out (no route, interface down): as if lost in the network.
    case lost(CInt)
  }

  /// Sends the bytes as datagrams of `segment` bytes each, the last one shorter.
  public func send(_ bytes: UnsafeRawBufferPointer, segment: Int, to: DatagramAddress) -> SendOutcome {
    while true {
      let count = clinux_datagram_send(
        descriptor.raw, to.address, to.port, bytes.baseAddress!, bytes.count, segment)
      if count >= 0 { return .sent }
      let code = errno
      switch code {
      case EINTR: continue
      case EAGAIN, ENOBUFS: return .full
      case EIO, EINVAL, ENOPROTOOPT, EMSGSIZE: return bytes.count > segment ? .noSegmentation : .lost(code)
      default: return .lost(code)
      }
    }
  }

  /// Receives what has come: `segment` bytes a datagram, the last one shorter. Nil: nothing is there.
  public func receive(
    into buffer: UnsafeMutableRawBufferPointer
  ) -> (count: Int, segment: Int, from: DatagramAddress)? {
    var from = DatagramAddress(address: 0, port: 0)
    var segment = 0
    // An error that an earlier datagram met (port unreachable) is told once, by the next call.
    for _ in 0..<8 {
      let count = clinux_datagram_receive(
        descriptor.raw, buffer.baseAddress!, buffer.count, &from.address, &from.port, &segment)
      if count >= 0 { return (count, segment, from) }
      if errno == EAGAIN { return nil }
    }
    return nil
  }
}
