import Glibc
import LinuxSystem
import Synchronization

/// The connection to the RAM shim of one QEMU.
final class ShimChannel: Sendable {
  let socket: OwnedDescriptor
  /// Orders commands: each is answered before the next is sent.
  private let turn = Mutex<Void>(())

  /// A shim that does not answer within ten seconds counts as gone: its thread never waits for anything but us.
  init(_ socket: OwnedDescriptor) throws(SystemError) {
    self.socket = socket
    var patience = timeval(tv_sec: 10, tv_usec: 0)
    try systemCall("setsockopt(SO_RCVTIMEO)") {
      setsockopt(
        socket.raw, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
    }
  }

  func request(_ command: ShimProtocol.Command) throws -> Userfaultfd {
    let device = try OwnedDescriptor.open("/dev/userfaultfd", O_RDWR)
    return try turn.withLock { _ in
      try Userfaultfd(handedOver: try ShimProtocol.request(command, of: socket, device: device))
    }
  }

  /// See `ShimProtocol.countOverwritten`.
  func countOverwritten() throws -> UInt64 {
    try turn.withLock { _ in try ShimProtocol.countOverwritten(of: socket) }
  }
}
