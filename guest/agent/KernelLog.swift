import Glibc

/// /dev/kmsg from a chosen point on: how a clone learns that the kernel noticed its new VM generation ID.
///
/// The driver says nothing else (the event "NEW_VMGENID" is younger than Debian 12's kernel). Only records of the
/// kernel itself count; what a process writes to /dev/kmsg bears another facility.
final class KernelLog {
  static let reseedMessage = "crng reseeded due to virtual machine fork"

  private let fd: Int32

  init() throws(SystemError) {
    fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC)
    guard fd >= 0 else { throw SystemError("open /dev/kmsg") }
  }

  deinit { close(fd) }

  /// Only records after this moment are seen.
  func skipToEnd() throws(SystemError) {
    guard lseek(fd, 0, SEEK_END) >= 0 else { throw SystemError("seek /dev/kmsg") }
  }

  /// Waits until the kernel has said `message`; false if it has not within the time.
  func wait(for message: String, milliseconds: Int) -> Bool {
    let deadline = monotonicMicroseconds() + UInt64(milliseconds) * 1000
    var record = [UInt8](repeating: 0, count: 8192)
    while true {
      switch record.withUnsafeMutableBytes({ readSome(fd, into: $0) }) {
      case .bytes(let count):
        if Self.isKernelRecord(record[..<count], saying: Array(message.utf8)) { return true }
      case .wouldBlock:
        let now = monotonicMicroseconds()
        guard now < deadline else { return false }
        var waiting = pollfd(fd: fd, events: Int16(POLLIN), revents: 0)
        poll(&waiting, 1, Int32((deadline - now) / 1000) + 1)
      case .failed(EPIPE):
        continue  // records were overwritten before they were read; the next read goes on with the oldest
      case .end, .failed:
        return false
      }
    }
  }

  /// A record is "priority,sequence,time,flags;text"; the priority's upper bits are the facility, 0 the kernel's.
  ///
  /// Bytes and loops: a clone runs this before anything is translated or any generic type made (10 ms as Strings).
  private static func isKernelRecord(_ record: ArraySlice<UInt8>, saying message: [UInt8]) -> Bool {
    var priority = 0
    for byte in record {
      guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) else { break }
      priority = priority * 10 + Int(byte - UInt8(ascii: "0"))
    }
    guard priority >> 3 == 0, record.count >= message.count else { return false }
    for start in record.startIndex...record.endIndex - message.count {
      var length = 0
      while length < message.count && record[start + length] == message[length] { length += 1 }
      if length == message.count { return true }
    }
    return false
  }
}
