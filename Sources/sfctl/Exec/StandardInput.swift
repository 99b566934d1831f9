import Foundation
import Glibc
import LinuxSystem

/// Our stdin, read on a thread of its own, one piece at a time and only when asked for.
final class StandardInput: Sendable {
  private let threads = WorkerThreads(name: "sfctl-stdin", limit: 1)
  private let cancelled: EventDescriptor
  private static let pieceBytes = 64 << 10

  init() throws { cancelled = try EventDescriptor() }

  /// What there is, 64 KiB at most; nil at the end, or when the task was cancelled.
  func next() async throws -> Data? {
    try await withTaskCancellationHandler {
      try await threads.run { [cancelled] in try Self.read(until: cancelled) }
    } onCancel: {
      cancelled.signal()
    }
  }

  private static func read(until cancelled: EventDescriptor) throws -> Data? {
    while true {
      var waiting = [
        pollfd(fd: STDIN_FILENO, events: Int16(POLLIN), revents: 0),
        pollfd(fd: cancelled.descriptor.raw, events: Int16(POLLIN), revents: 0),
      ]
      if poll(&waiting, 2, -1) < 0 { continue }  // EINTR
      if waiting[1].revents != 0 { return nil }
      var piece = [UInt8](repeating: 0, count: pieceBytes)
      let count = Glibc.read(STDIN_FILENO, &piece, piece.count)
      if count > 0 { return Data(piece[..<count]) }
      if count == 0 { return nil }
      switch errno {
      case EINTR, EAGAIN: continue
      case EIO: return nil  // the terminal has gone away, or we are in its background
      default: throw Failure("cannot read stdin: \(SystemError("read", subject: "stdin", errno: errno)).")
      }
    }
  }
}
