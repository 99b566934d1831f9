import CTrace
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

/// One sentence to the user; nothing else is ever said beside the program's own words.
func say(_ text: String) { writeAll(2, Array("sf-offload: \(text)\n".utf8)) }

func monotonicMicroseconds() -> UInt64 {
  var now = timespec()
  clock_gettime(CLOCK_MONOTONIC, &now)
  return UInt64(now.tv_sec) * 1_000_000 + UInt64(now.tv_nsec) / 1000
}

@discardableResult
func writeAll(_ fd: Int32, _ bytes: [UInt8]) -> Bool {
  bytes.withUnsafeBytes { all in
    var offset = 0
    while offset < all.count {
      let count = write(fd, all.baseAddress! + offset, all.count - offset)
      if count < 0 && errno == EINTR { continue }
      guard count > 0 else { return false }
      offset += count
    }
    return true
  }
}

/// A file of /proc, or a small one: all of it; nil if it can not be read.
func contents(of path: String) -> [UInt8]? {
  let fd = open(path, O_RDONLY | O_CLOEXEC)
  guard fd >= 0 else { return nil }
  defer { close(fd) }
  var bytes: [UInt8] = []
  var chunk = [UInt8](repeating: 0, count: 4 << 10)
  while true {
    let count = read(fd, &chunk, chunk.count)
    if count < 0 && errno == EINTR { continue }
    guard count >= 0 else { return nil }
    if count == 0 { return bytes }
    bytes += chunk[..<count]
  }
}

/// Names in a directory, without "." and "..".
func names(in directory: String) -> [String] {
  guard let stream = opendir(directory) else { return [] }
  defer { closedir(stream) }
  var names: [String] = []
  while let entry = readdir(stream) {
    let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
      String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
    }
    if name != "." && name != ".." { names.append(name) }
  }
  return names
}

func linkTarget(_ path: String) -> String? {
  var buffer = [UInt8](repeating: 0, count: 4096)
  let count = buffer.withUnsafeMutableBytes { readlink(path, $0.baseAddress!, $0.count) }
  return count >= 0 ? String(decoding: buffer[..<count], as: UTF8.self) : nil
}

/// A line "Name: value" of a text like /proc/PID/status; the value's first word in the given base.
func field(_ name: String, of text: [UInt8], base: Int) -> UInt64? {
  for line in text.split(separator: UInt8(ascii: "\n")) where line.starts(with: name.utf8) {
    let words = String(decoding: line.dropFirst(name.utf8.count), as: UTF8.self)
      .split { $0 == " " || $0 == "\t" || $0 == ":" }
    return words.first.flatMap { UInt64($0, radix: base) }
  }
  return nil
}

/// Text out of and into a fixed C array.
func text(_ pointer: UnsafePointer<CChar>) -> String { String(cString: pointer) }

func setText(_ text: String, _ pointer: UnsafeMutablePointer<CChar>, _ size: Int) {
  let bytes = Array(text.utf8.prefix(size - 1))
  for (index, byte) in bytes.enumerated() { pointer[index] = CChar(bitPattern: byte) }
  pointer[bytes.count] = 0
}
