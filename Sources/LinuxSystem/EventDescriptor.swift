import CLinux
import Glibc

/// An eventfd: wakes a thread that waits in epoll or read.
public struct EventDescriptor: Sendable {
  public let descriptor: OwnedDescriptor

  public init() throws(SystemError) {
    descriptor = OwnedDescriptor(
      taking: try systemCall("eventfd") { eventfd(0, CInt(EFD_CLOEXEC) | CInt(EFD_NONBLOCK)) })
  }

  /// Makes the descriptor readable. Any thread.
  public func signal() {
    var one: UInt64 = 1
    _ = write(descriptor.raw, &one, 8)  // fails only if it is readable already
  }

  /// Takes the signals so far back. False: there was none.
  @discardableResult
  public func clear() -> Bool {
    var count: UInt64 = 0
    return read(descriptor.raw, &count, 8) == 8
  }
}
