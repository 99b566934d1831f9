import CLinux
import Glibc

/// Memory whose pages stay where they are as long as it lives.
///
/// A write(2) from ordinary memory can find a page of its source moved away in mid-copy (compaction); the kernel
/// then publishes the half-copied page of the file before it copies the rest. Locking does not prevent that, a
/// reference on each page does: such pages are never picked for migration (mm/compaction.c,
/// isolate_migratepages_block).
public final class HeldBuffer: @unchecked Sendable {
  public let start: UnsafeMutableRawPointer
  public let count: Int
  /// A pipe that nobody reads: it holds the references.
  private var pipe: [CInt] = [-1, -1]

  /// `pages`: at most 256.
  public init(pages: Int) throws(SystemError) {
    count = pages * 4096
    let length = count
    let mapped = mmap(
      nil, length, PROT_READ | PROT_WRITE, CInt(MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE), -1, 0)
    guard let mapped, mapped != MAP_FAILED else {
      throw SystemError("mmap", subject: "a copy buffer", errno: errno)
    }
    start = mapped
    do {
      try systemCall("mlock") { mlock(mapped, length) }
      try systemCall("vmsplice") { clinux_hold_pages(mapped, length, &pipe) }
    } catch {
      munmap(mapped, length)
      throw error
    }
  }

  deinit {
    munmap(start, count)
    close(pipe[0])
    close(pipe[1])
  }
}
