import Dispatch
import Glibc
import Synchronization

/// Signals to us that are meant for the command in the guest. Each object hears of all that come while it lives.
final class ForwardedSignals: Sendable {
  let stream: AsyncStream<Int32>
  private static let listeners = Mutex<[ObjectIdentifier: AsyncStream<Int32>.Continuation]>([:])
  private static let newest = Mutex<Int32?>(nil)
  /// The last one that came to this process.
  static var last: Int32? { newest.withLock { $0 } }
  /// Armed once in the process: ignoring a signal again would take it from the source that there is.
  nonisolated(unsafe) private static let sources: [any DispatchSourceSignal] = {
    [SIGINT, SIGTERM, SIGHUP, SIGQUIT].map { number in
      signal(number, SIG_IGN)
      let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
      source.setEventHandler {
        newest.withLock { $0 = number }
        listeners.withLock { for listener in $0.values { listener.yield(number) } }
      }
      source.resume()
      return source
    }
  }()

  init() {
    let (stream, continuation) = AsyncStream.makeStream(of: Int32.self)
    self.stream = stream
    Self.listeners.withLock { $0[ObjectIdentifier(self)] = continuation }
    _ = Self.sources
  }

  deinit { Self.listeners.withLock { _ = $0.removeValue(forKey: ObjectIdentifier(self)) } }
}
