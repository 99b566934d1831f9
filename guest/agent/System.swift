import Glibc

/// errno of a failed system call, saved before anything else runs.
struct SystemError: Error, CustomStringConvertible {
  var operation: String
  var code: Int32

  init(_ operation: String, _ code: Int32 = errno) {
    self.operation = operation
    self.code = code
  }

  var description: String { "\(operation): \(String(cString: strerror(code)))" }
}

/// One line on the console; the agent has no other log.
func log(_ text: String) {
  writeAll(2, Array("sf-agent: \(text)\n".utf8))
}

func monotonicMicroseconds() -> UInt64 {
  var now = timespec()
  clock_gettime(CLOCK_MONOTONIC, &now)
  return UInt64(now.tv_sec) * 1_000_000 + UInt64(now.tv_nsec) / 1000
}

func setNonBlocking(_ fd: Int32) {
  _ = fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK)
}

enum Transfer {
  case bytes(Int)
  case wouldBlock
  case end
  case failed(Int32)
}

/// One read, EINTR retried.
func readSome(_ fd: Int32, into buffer: UnsafeMutableRawBufferPointer) -> Transfer {
  while true {
    let count = read(fd, buffer.baseAddress, buffer.count)
    if count > 0 { return .bytes(count) }
    if count == 0 { return .end }
    switch errno {
    case EINTR: continue
    case EAGAIN: return .wouldBlock
    default: return .failed(errno)
    }
  }
}

/// One write, EINTR retried.
func writeSome(_ fd: Int32, _ bytes: UnsafeRawBufferPointer) -> Transfer {
  while true {
    let count = write(fd, bytes.baseAddress, bytes.count)
    if count >= 0 { return .bytes(count) }
    switch errno {
    case EINTR: continue
    case EAGAIN: return .wouldBlock
    default: return .failed(errno)
    }
  }
}

/// Writes to a blocking descriptor until done or failed; returns whether all was written.
@discardableResult
func writeAll(_ fd: Int32, _ bytes: [UInt8]) -> Bool {
  bytes.withUnsafeBytes { all in
    var offset = 0
    while offset < all.count {
      guard case .bytes(let count) = writeSome(fd, UnsafeRawBufferPointer(rebasing: all[offset...]))
      else { return false }
      offset += count
    }
    return true
  }
}

/// A small file's text without its last newline, or nil.
func readText(_ path: String) -> String? {
  let fd = open(path, O_RDONLY | O_CLOEXEC)
  guard fd >= 0 else { return nil }
  defer { close(fd) }
  var bytes: [UInt8] = []
  var chunk = [UInt8](repeating: 0, count: 4096)
  while true {
    switch chunk.withUnsafeMutableBytes({ readSome(fd, into: $0) }) {
    case .bytes(let count): bytes += chunk[..<count]
    case .end:
      if bytes.last == UInt8(ascii: "\n") { bytes.removeLast() }
      return String(decoding: bytes, as: UTF8.self)
    case .wouldBlock, .failed: return nil
    }
  }
}

/// Names in a directory, sorted, without "." and ".."; none if it is not there.
func namesIn(_ directory: String) -> [String] {
  guard let stream = opendir(directory) else { return [] }
  defer { closedir(stream) }
  var names: [String] = []
  while let entry = readdir(stream) {
    let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
      String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
    }
    if name != "." && name != ".." { names.append(name) }
  }
  return names.sorted()
}

/// A small text file, kept open so that replacing its text is one write.
final class TextFile {
  private let path: String
  private let fd: Int32
  private var length: Int

  /// Makes the file if it is not there; its text stays as it is.
  init(_ path: String) throws(SystemError) {
    self.path = path
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
    guard fd >= 0 else { throw SystemError("open \(path)") }
    var status = stat()
    length = fstat(fd, &status) == 0 ? Int(status.st_size) : 0
  }

  deinit { close(fd) }

  func replace(_ text: String) throws(SystemError) {
    let bytes = Array(text.utf8)
    guard pwrite(fd, bytes, bytes.count, 0) == bytes.count else { throw SystemError("write \(path)") }
    if length > bytes.count {
      guard ftruncate(fd, bytes.count) == 0 else { throw SystemError("truncate \(path)") }
    }
    length = bytes.count
  }
}
