import CLinux
import Glibc

/// The memory of another process, read from outside.
public final class ProcessMemory: Sendable {
  public let pid: pid_t
  private let pagemap: OwnedDescriptor

  public init(pid: pid_t) throws(SystemError) {
    self.pid = pid
    pagemap = try OwnedDescriptor.open("/proc/\(pid)/pagemap", O_RDONLY)
  }

  /// Copies a range that is known to be present. A page that would have to be served by ourselves must not be in
  /// it: the call would wait for us. ESRCH: the process has ended. EIO: a part is not mapped.
  public func read(
    at address: UInt64, into buffer: UnsafeMutableRawPointer, count: Int
  ) throws(SystemError) {
    let got = try systemCallOfPeer("process_vm_readv") { clinux_process_read(pid, address, buffer, count) }
    if got != count { throw SystemError("process_vm_readv", subject: "process \(pid)", errno: EIO) }
  }

  /// A range of pages that the process does not share with the file it maps.
  public struct PrivateRun: Sendable {
    public var addresses: Range<UInt64>
    /// It is the kernel's page of zeros.
    public var isZero: Bool
  }

  /// The private pages of `range`: present, and not the file's. Pages swapped out are not found (they can not be told
  /// from write-protection markers): see `swappedBytes`. Linux 6.7.
  public func privateRuns(in range: Range<UInt64>) throws(SystemError) -> [PrivateRun] {
    var runs: [PrivateRun] = []
    var next = range.lowerBound
    let room = 1024
    try withUnsafeTemporaryAllocation(of: clinux_page_region.self, capacity: room) {
      (regions) throws(SystemError) in
      while next < range.upperBound {
        let count = try systemCall("PAGEMAP_SCAN", subject: "process \(pid)") {
          clinux_pagemap_scan(
            pagemap.raw, next, range.upperBound, CLINUX_PAGE_IS_PRESENT, CLINUX_PAGE_IS_FILE,
            CLINUX_PAGE_IS_PFNZERO, regions.baseAddress!, UInt64(room), &next)
        }
        for region in regions.prefix(count) {
          runs.append(
            PrivateRun(
              addresses: region.start..<region.end,
              isZero: region.categories & CLINUX_PAGE_IS_PFNZERO != 0))
        }
      }
    }
    return runs
  }

  /// Bytes of private memory that are swapped out now.
  public func swappedBytes() throws(SystemError) -> UInt64 {
    let status = try readTextFile("/proc/\(pid)/status")
    guard let line = status.split(separator: "\n").first(where: { $0.hasPrefix("VmSwap:") }) else { return 0 }
    return (line.split(separator: " ").compactMap { UInt64($0) }.first ?? 0) * 1024
  }
}

/// As `systemCall`, for calls where a bad address is the peer's doing and not ours.
private func systemCallOfPeer(
  _ operation: StaticString, _ call: () -> Int
) throws(SystemError) -> Int {
  while true {
    let result = call()
    if result != -1 { return result }
    let code = errno
    if code == EINTR { continue }
    throw SystemError("\(operation)", errno: code)
  }
}

/// Whether the process exists, and when it was started (clock ticks after boot): pid and start time name a process for
/// good, a pid alone is used again. Nil: it does not exist, or is a zombie.
public func processStartTime(_ pid: pid_t) -> UInt64? {
  guard let text = try? readTextFile("/proc/\(pid)/stat"), let end = text.lastIndex(of: ")") else {
    return nil
  }
  // After "pid (name)": state is the 3rd field of proc(5), the start time the 22nd.
  let fields = text[text.index(after: end)...].split(separator: " ")
  guard fields.count > 19, fields[0] != "Z", fields[0] != "X" else { return nil }
  return UInt64(fields[19])
}

/// The whole of a small file, such as those in /proc.
public func readTextFile(_ path: String) throws(SystemError) -> String {
  let file = try OwnedDescriptor.open(path, O_RDONLY)
  var text: [UInt8] = []
  var buffer = [UInt8](repeating: 0, count: 4096)
  while true {
    let count = try systemCall("read", subject: path) { Glibc.read(file.raw, &buffer, buffer.count) }
    if count == 0 { return String(decoding: text, as: UTF8.self) }
    text += buffer[0..<count]
  }
}
