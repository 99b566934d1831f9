/// A set of pages, one bit each.
public struct PageBitmap: Sendable, Equatable {
  public let pageCount: Int
  private var words: [UInt64]

  public init(pageCount: Int) {
    self.pageCount = pageCount
    words = Array(repeating: 0, count: (pageCount + 63) / 64)
  }

  @inlinable
  public func contains(_ page: PageIndex) -> Bool { word(page >> 6) >> UInt64(page & 63) & 1 != 0 }

  /// Whether every page of the range is in the set.
  public func contains(contentsOf range: PageRange) -> Bool {
    precondition(range.lowerBound >= 0 && range.upperBound <= pageCount)
    return next(from: range.lowerBound, inverted: true).map { $0 >= range.upperBound } ?? true
  }

  @usableFromInline
  func word(_ index: Int) -> UInt64 { words[index] }

  public mutating func insert(_ page: PageIndex) {
    precondition(page >= 0 && page < pageCount)
    words[page >> 6] |= 1 << UInt64(page & 63)
  }

  public mutating func insert(contentsOf range: PageRange) {
    precondition(range.lowerBound >= 0 && range.upperBound <= pageCount)
    forEachWord(of: range) { _, word, mask in word |= mask }
  }

  public mutating func remove(contentsOf range: PageRange) {
    precondition(range.lowerBound >= 0 && range.upperBound <= pageCount)
    forEachWord(of: range) { _, word, mask in word &= ~mask }
  }

  /// Adds what `other` has in the range.
  public mutating func formUnion(_ other: PageBitmap, in range: PageRange) {
    precondition(range.upperBound <= other.pageCount)
    forEachWord(of: range) { index, word, mask in word |= other.words[index] & mask }
  }

  public mutating func removeAll() {
    for index in words.indices { words[index] = 0 }
  }

  public var isEmpty: Bool { words.allSatisfy { $0 == 0 } }
  public var count: Int { words.reduce(0) { $0 + $1.nonzeroBitCount } }

  /// Calls `body` with each maximal run of pages in the set, in ascending order.
  public func forEachRun(_ body: (PageRange) -> Void) {
    var page = 0
    while let first = next(from: page, inverted: false) {
      let end = next(from: first, inverted: true) ?? pageCount
      body(first..<end)
      page = end
    }
  }

  public var runs: [PageRange] {
    var result: [PageRange] = []
    forEachRun { result.append($0) }
    return result
  }

  /// The first page from `page` on that is in the set, or with `inverted`, that is not.
  private func next(from page: Int, inverted: Bool) -> PageIndex? {
    guard page < pageCount else { return nil }
    let flip: UInt64 = inverted ? ~0 : 0
    var index = page >> 6
    var word = (words[index] ^ flip) & (~0 << UInt64(page & 63))
    while word == 0 {
      index += 1
      if index == words.count { return nil }
      word = words[index] ^ flip
    }
    let found = index << 6 + word.trailingZeroBitCount
    return found < pageCount ? found : nil
  }

  private mutating func forEachWord(of range: PageRange, _ apply: (Int, inout UInt64, UInt64) -> Void) {
    var page = range.lowerBound
    while page < range.upperBound {
      let index = page >> 6
      let low = page & 63
      let high = Swift.min(64, low + range.upperBound - page)
      let mask: UInt64 = (high == 64 ? ~0 : (1 << UInt64(high)) - 1) & (~0 << UInt64(low))
      apply(index, &words[index], mask)
      page += high - low
    }
  }
}
