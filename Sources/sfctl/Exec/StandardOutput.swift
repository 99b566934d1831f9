import ArgumentParser
import Foundation
import Glibc
import LinuxSystem

/// Our stdout and stderr, written on a thread of their own: a reader that is slow holds up the command in the
/// guest and nothing else.
final class StandardOutput: Sendable {
  enum Stream { case output, error }
  private let threads = WorkerThreads(name: "sfctl-stdout", limit: 1)

  /// Returns when all of it is written. A reader that has gone away ends sfctl as SIGPIPE would have.
  func write(_ bytes: Data, to stream: Stream) async throws {
    try await threads.run {
      let descriptor = stream == .output ? STDOUT_FILENO : STDERR_FILENO
      guard bytes.withUnsafeBytes({ Standard.write($0, to: descriptor) }) else {
        if errno == EPIPE { throw ExitCode(128 + SIGPIPE) }
        throw Failure("cannot write the command's output: \(SystemError("write", errno: errno)).")
      }
    }
  }
}
