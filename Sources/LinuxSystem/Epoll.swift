import CLinux
import Glibc

/// An epoll instance whose entries carry a number of the caller's. Entries may be added and removed by any thread;
/// one thread waits.
public final class Epoll: @unchecked Sendable {
  private let descriptor: OwnedDescriptor
  /// Written by `wait` only.
  private let ready: UnsafeMutableBufferPointer<epoll_event>

  public init() throws(SystemError) {
    descriptor = OwnedDescriptor(
      taking: try systemCall("epoll_create1") { epoll_create1(CInt(EPOLL_CLOEXEC)) })
    ready = .allocate(capacity: 32)
  }

  deinit { ready.deallocate() }

  public enum Interest: Sendable { case readable, hangUp }

  public func add(_ file: OwnedDescriptor, _ interest: Interest, tag: UInt64) throws(SystemError) {
    var event = epoll_event()
    event.events = (interest == .readable ? EPOLLIN : EPOLLRDHUP).rawValue
    event.data.u64 = tag
    try systemCall("epoll_ctl(ADD)") { epoll_ctl(descriptor.raw, EPOLL_CTL_ADD, file.raw, &event) }
  }

  public func remove(_ file: OwnedDescriptor) {
    epoll_ctl(descriptor.raw, EPOLL_CTL_DEL, file.raw, nil)  // fails only if it is not in
  }

  /// Waits for something to be ready, at most `timeoutMilliseconds`; -1: for ever. The number of entries, at most 32;
  /// their tags are `tag(0)` and so on until the next wait.
  public func wait(timeoutMilliseconds: CInt = -1) throws(SystemError) -> Int {
    Int(
      try systemCall("epoll_wait") {
        epoll_wait(descriptor.raw, ready.baseAddress!, CInt(ready.count), timeoutMilliseconds)
      })
  }

  /// The same, with a time in nanoseconds; nil: for ever. Ends with 0 entries when a signal comes as well.
  public func wait(nanoseconds: UInt64?) throws(SystemError) -> Int {
    guard let nanoseconds else { return try wait() }
    var time = timespec(
      tv_sec: Int(nanoseconds / 1_000_000_000), tv_nsec: Int(nanoseconds % 1_000_000_000))
    let count = epoll_pwait2(descriptor.raw, ready.baseAddress!, CInt(ready.count), &time, nil)
    if count >= 0 { return Int(count) }
    if errno == EINTR { return 0 }
    throw SystemError("epoll_pwait2", errno: errno)
  }

  public func tag(_ index: Int) -> UInt64 { ready[index].data.u64 }
}
