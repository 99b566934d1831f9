import Glibc
import LinuxSystem
import Synchronization

/// Passes events on to the connections that listen.
final class EventHub: Sendable {
  /// Orders subscriptions and events, so that a new listener misses none.
  private let listeners = Mutex<[OwnedDescriptor]>([])

  init() {}

  /// From now on the connection gets every event; first those in `standing`.
  func add(_ socket: OwnedDescriptor, standing: () -> [MemtapEvent]) throws(SystemError) {
    try socket.setNonBlocking()
    listeners.withLock { $0.append(socket) }
    // After it was added: an event that happens meanwhile may come twice, which does no harm, but never not at all.
    for event in standing() { _ = Self.send(event, to: socket) }
  }

  /// Never waits: a listener that does not read is cut off, and learns what stands when it connects again.
  func post(_ event: MemtapEvent) {
    listeners.withLock { listeners in
      listeners.removeAll { socket in
        if Self.send(event, to: socket) { return false }
        shutdown(socket.raw, CInt(SHUT_RDWR))
        return true
      }
    }
  }

  private static func send(_ event: MemtapEvent, to socket: OwnedDescriptor) -> Bool {
    let frame = ControlFrame.encode(event)
    return frame.withUnsafeBytes { bytes in
      (try? UnixSocket.send(socket, bytes)) != nil
    }
  }
}
