import Foundation
import Glibc
import Synchronization

/// Memory that this machine really has. A machine that is itself a VM may have lent its free memory back to its host; to get a
/// page again takes longer than all that is measured here. So it is touched before, and let go as others take memory.
final class HostMemory: Sendable {
  private static let step = 32 << 20
  private let start: UInt
  private let bytes: Int
  private let freeBytes: Int
  private let isClosed = Mutex(false)
  private let done = DispatchSemaphore(value: 0)

  /// Takes `mebibytes`, and from now on gives back as much as free memory becomes less.
  init(mebibytes: Int) {
    bytes = mebibytes << 20
    let memory = mmap(nil, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    guard let memory, memory != MAP_FAILED else { fatalError("no \(mebibytes) MiB of memory are to be had") }
    // In large pages, so that what is let go can be taken as such.
    madvise(memory, bytes, MADV_HUGEPAGE)
    for offset in stride(from: 0, to: bytes, by: 4096) {
      memory.storeBytes(of: 1, toByteOffset: offset, as: UInt8.self)
    }
    start = UInt(bitPattern: memory)
    freeBytes = Self.free()
    Thread.detachNewThread { [self] in run() }
  }

  /// Gives back the rest.
  func close() {
    isClosed.withLock { $0 = true }
    done.wait()
  }

  private func run() {
    var given = 0
    while given < bytes, !isClosed.withLock({ $0 }) {
      if Self.free() < freeBytes + 5 * Self.step {
        munmap(UnsafeMutableRawPointer(bitPattern: start + UInt(given)), min(Self.step, bytes - given))
        given += Self.step
      } else {
        usleep(2000)
      }
    }
    if given < bytes { munmap(UnsafeMutableRawPointer(bitPattern: start + UInt(given)), bytes - given) }
    done.signal()
  }

  private static func free() -> Int {
    let text = (try? String(contentsOfFile: "/proc/meminfo", encoding: .utf8)) ?? ""
    let line = text.split(separator: "\n").first { $0.hasPrefix("MemFree:") }
    return (line?.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0) << 10
  }
}
