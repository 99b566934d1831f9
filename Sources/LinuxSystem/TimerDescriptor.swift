import CLinux
import Glibc

/// A timerfd of CLOCK_MONOTONIC: wakes a thread that waits in epoll, to the microsecond where epoll's own time-out
/// knows milliseconds.
public struct TimerDescriptor: Sendable {
  public let descriptor: OwnedDescriptor

  public init() throws(SystemError) {
    descriptor = OwnedDescriptor(taking: try systemCall("timerfd_create") { clinux_timerfd_create() })
  }

  /// Readable from `deadline` on (nanoseconds of CLOCK_MONOTONIC; one that has passed: at once); nil: never.
  public func set(_ deadline: UInt64?) {
    // Fails for a bad descriptor only.
    _ = clinux_timerfd_set(descriptor.raw, deadline.map { max($0, 1) } ?? 0)
  }

  /// Takes the expiry back. False: there was none.
  @discardableResult
  public func clear() -> Bool {
    var count: UInt64 = 0
    return read(descriptor.raw, &count, 8) == 8
  }
}

/// CLOCK_MONOTONIC in nanoseconds.
public func monotonicNanoseconds() -> UInt64 {
  var now = timespec()
  clock_gettime(CLOCK_MONOTONIC, &now)
  return UInt64(now.tv_sec) * 1_000_000_000 + UInt64(now.tv_nsec)
}
