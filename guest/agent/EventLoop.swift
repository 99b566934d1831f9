import CGuest
import Glibc

/// One thread, one epoll: every descriptor of the agent is served here.
///
/// A handler is known by a token that is never used again, so an event that was fetched together with its
/// descriptor's end finds no handler rather than another descriptor's.
final class EventLoop {
  typealias Handler = (_ events: UInt32) -> Void
  typealias Token = UInt64

  static let readable = EPOLLIN.rawValue
  static let writable = EPOLLOUT.rawValue
  static let edgeTriggered = EPOLLET.rawValue

  private let epoll: Int32
  private var handlers: [Token: (fd: Int32, handler: Handler)] = [:]
  private var nextToken: Token = 1

  init() throws(SystemError) {
    epoll = epoll_create1(Int32(EPOLL_CLOEXEC))
    guard epoll >= 0 else { throw SystemError("epoll_create1") }
  }

  func add(_ fd: Int32, _ events: UInt32, _ handler: @escaping Handler) throws(SystemError) -> Token {
    let token = nextToken
    nextToken += 1
    var event = epoll_event(events: events, data: epoll_data(u64: token))
    guard epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0 else { throw SystemError("epoll_ctl") }
    handlers[token] = (fd, handler)
    return token
  }

  func modify(_ token: Token, _ events: UInt32) {
    guard let fd = handlers[token]?.fd else { return }
    var event = epoll_event(events: events, data: epoll_data(u64: token))
    epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event)
  }

  /// Before the descriptor is closed.
  func remove(_ token: Token) {
    guard let (fd, _) = handlers.removeValue(forKey: token) else { return }
    epoll_ctl(epoll, EPOLL_CTL_DEL, fd, nil)
  }

  func run() -> Never {
    var events = [epoll_event](repeating: epoll_event(), count: 64)
    while true {
      let count = epoll_wait(epoll, &events, Int32(events.count), -1)
      guard count > 0 else { continue }
      for event in events[..<Int(count)] {
        handlers[event.data.u64]?.handler(event.events)
      }
    }
  }
}
