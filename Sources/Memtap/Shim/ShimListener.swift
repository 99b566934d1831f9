import Glibc
import LinuxSystem

/// The door of the shims: takes their hellos and notices their ends, on one thread.
///
/// A QEMU's userfaultfd gives no sign of its end, its socket does: it closes when the last thread has gone, and with
/// it the process's memory.
final class ShimListener: @unchecked Sendable {
  private let listener: OwnedDescriptor
  private let epoll: Epoll
  /// Both run on the listener's thread. `onHello` says whose the connection is; nil: nobody's, close it.
  private let onHello: @Sendable (ShimProtocol.Hello, ShimChannel) -> Region?
  private let onEnd: @Sendable (Region) -> Void
  /// Called after every round; whether it wants to be called again soon, without a reason.
  private let onRound: @Sendable () -> Bool
  private var isHurried = true
  /// By epoll tag, 1 and up; the thread's own.
  private var connections: [UInt64: (channel: ShimChannel, region: Region?)] = [:]
  private var nextTag: UInt64 = 1
  /// Those without a hello, oldest first. A shim speaks at once; who only occupies the door makes way.
  private var silent: [UInt64] = []
  private static let silentMax = 128
  private static let tickMilliseconds: CInt = 100

  init(
    socketPath: String, onHello: @escaping @Sendable (ShimProtocol.Hello, ShimChannel) -> Region?,
    onEnd: @escaping @Sendable (Region) -> Void, onRound: @escaping @Sendable () -> Bool
  ) throws(SystemError) {
    // Open to QEMU's user; the token tells who it is.
    listener = try UnixSocket.listen(path: socketPath, mode: 0o666)
    epoll = try Epoll()
    self.onHello = onHello
    self.onEnd = onEnd
    self.onRound = onRound
    try epoll.add(listener, .readable, tag: 0)
  }

  func start() throws(SystemError) {
    try NamedThread("memtap-shims") { [self] in
      while true { round() }
    }.detach()
  }

  private func round() {
    let count: Int
    do throws(SystemError) {
      count = try epoll.wait(timeoutMilliseconds: isHurried ? Self.tickMilliseconds : -1)
    } catch {
      fatalError("\(error)")
    }
    for index in 0..<count {
      let tag = epoll.tag(index)
      if tag == 0 { accept() } else { advance(tag) }
    }
    isHurried = onRound()
  }

  private func accept() {
    guard let socket = try? UnixSocket.accept(listener), let channel = try? ShimChannel(socket) else {
      return
    }
    if silent.count == Self.silentMax, let oldest = connections.removeValue(forKey: silent.removeFirst()) {
      epoll.remove(oldest.channel.socket)
    }
    guard (try? epoll.add(socket, .readable, tag: nextTag)) != nil else { return }
    connections[nextTag] = (channel, nil)
    silent.append(nextTag)
    nextTag += 1
  }

  /// A connection without a hello has something to read; one with a hello has hung up.
  private func advance(_ tag: UInt64) {
    guard let (channel, region) = connections[tag] else { return }
    epoll.remove(channel.socket)
    if let region {
      connections[tag] = nil
      onEnd(region)
      return
    }
    silent.removeAll { $0 == tag }
    guard let hello = try? ShimProtocol.readHello(channel.socket), let region = onHello(hello, channel),
      (try? epoll.add(channel.socket, .hangUp, tag: tag)) != nil
    else {
      connections[tag] = nil
      return
    }
    connections[tag] = (channel, region)
  }
}
