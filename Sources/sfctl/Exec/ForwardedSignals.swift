import Dispatch
import Glibc

/// Signals to us that are meant for the command in the guest.
final class ForwardedSignals: Sendable {
  let stream: AsyncStream<Int32>
  /// Held so that they stay armed; never touched again.
  nonisolated(unsafe) private let sources: [any DispatchSourceSignal]

  init() {
    let (stream, continuation) = AsyncStream.makeStream(of: Int32.self)
    self.stream = stream
    sources = [SIGINT, SIGTERM, SIGHUP, SIGQUIT].map { number in
      signal(number, SIG_IGN)
      let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
      source.setEventHandler { continuation.yield(number) }
      source.resume()
      return source
    }
  }
}
