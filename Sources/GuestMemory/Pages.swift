/// Pages of guest RAM: 4 KiB each, counted from the beginning of QEMU's RAM block (which above some 3 GiB is not the
/// guest-physical address).
public enum Page {
  public static let bytes = 4096

  /// Bytes to pages; a size that is no whole number of pages is a caller's bug.
  public static func count(ofBytes bytes: UInt64) -> Int {
    precondition(bytes % UInt64(Self.bytes) == 0, "RAM of a VM is a whole number of pages")
    return Int(bytes / UInt64(Self.bytes))
  }
}

/// The number of a page, from 0.
public typealias PageIndex = Int

/// Consecutive pages.
public typealias PageRange = Range<PageIndex>

extension Range where Bound == PageIndex {
  /// The window of `size` pages (a power of two), aligned to its size, that holds `page`; cut off at `end`.
  @inlinable
  public static func window(around page: PageIndex, size: Int, end: PageIndex) -> PageRange {
    let first = page & ~(size - 1)
    return first..<Swift.min(first + size, end)
  }
}
