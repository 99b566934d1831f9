import Foundation
import Glibc

/// The process's own streams. Everything sfctl says goes through here.
enum Standard {
  /// Text for a person. A reader that has gone away (`sfctl ps | head -1`) ends sfctl quietly.
  static func output(_ text: String) {
    let line = text.hasSuffix("\n") ? text : text + "\n"
    guard write(line, to: STDOUT_FILENO) else { exit(errno == EPIPE ? 0 : 1) }
  }

  /// `sfctl: what failed: why. What to do.`
  static func error(_ message: String) { _ = write("sfctl: \(message)\n", to: STDERR_FILENO) }

  /// One JSON document, on one line, its keys in snake_case and sorted.
  static func json(_ document: some Encodable) throws {
    let encoder = JSONEncoder()
    encoder.keyEncodingStrategy = .convertToSnakeCase
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    output(String(decoding: try encoder.encode(document), as: UTF8.self))
  }

  static var errorIsTerminal: Bool { isatty(STDERR_FILENO) == 1 }

  /// False: `errno` says why.
  static func write(_ text: String, to descriptor: CInt) -> Bool {
    var text = text
    return text.withUTF8 { write(UnsafeRawBufferPointer($0), to: descriptor) }
  }

  /// Writes all of it, waiting where the descriptor does not block. False: `errno` says why.
  static func write(_ bytes: UnsafeRawBufferPointer, to descriptor: CInt) -> Bool {
    var done = 0
    while done < bytes.count {
      let count = Glibc.write(descriptor, bytes.baseAddress! + done, bytes.count - done)
      if count >= 0 {
        done += count
      } else if errno == EAGAIN {
        var waiting = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
        _ = poll(&waiting, 1, -1)
      } else if errno != EINTR {
        return false
      }
    }
    return true
  }
}

/// Opens /dev/null in place of a standard descriptor that the caller has closed, so that no socket takes its number.
func reserveStandardDescriptors() {
  for descriptor in STDIN_FILENO...STDERR_FILENO where fcntl(descriptor, F_GETFD) == -1 {
    // The lowest free number is the one that was closed.
    _ = open("/dev/null", descriptor == STDIN_FILENO ? O_RDONLY : O_WRONLY)
  }
}
