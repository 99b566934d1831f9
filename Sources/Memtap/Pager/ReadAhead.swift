import GuestMemory

/// How much is brought in with a demand. What a guest reads in order (a file, its kernel's `struct page`) lies near together, but seldom
/// in order, for the buddy allocator splits its blocks from either end. So blocks grow as its do: a demand next to an
/// aligned block that has been brought in whole brings a block of the same size, on either side.
struct ReadAhead {
  /// With 16 the replayed trace of docs/avoidance.md has a tenth fewer demands, and an eighth more pages in vain.
  private static let blockMin = 32
  /// 256 KiB: from another host some 1 ms of a gigabit link.
  private static let blockMax = 64

  /// The pages that were brought in for a demand, or are on their way.
  private var asked: PageBitmap

  init(pageCount: Int) { asked = PageBitmap(pageCount: pageCount) }

  /// What to bring in because of a demand for `page`: the window around it, or more.
  mutating func pages(at page: PageIndex, window size: Int, end: PageIndex) -> PageRange {
    var range = PageRange.window(around: page, size: size, end: end)
    var blockSize = Self.blockMin
    while blockSize <= Self.blockMax {
      let block = PageRange.window(around: page, size: blockSize, end: end)
      if isAsked(block.lowerBound - blockSize, blockSize, end) || isAsked(block.upperBound, blockSize, end) {
        range = block
      }
      blockSize *= 2
    }
    asked.insert(contentsOf: range)
    return range
  }

  private func isAsked(_ first: PageIndex, _ size: Int, _ end: PageIndex) -> Bool {
    first >= 0 && first + size <= end && asked.contains(contentsOf: first..<first + size)
  }
}
