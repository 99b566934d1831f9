/// Makes PageRecords of pages as they are compared, in the order of their addresses.
package struct PageRecordWriter {
  /// Above these a page goes whole: reading and writing it in pieces would cost more.
  private static let runLimit = 12
  private static let changedLimit = 384

  private let withBefore: Bool
  private var output: [UInt8] = []
  /// The last record, if it is of whole pages: where it begins, and which page would go on with it.
  private var whole: (offset: Int, next: UInt64)?

  package init(withBefore: Bool) { self.withBefore = withBefore }

  package var count: Int { output.count }

  /// What there is so far, which is forgotten here.
  package mutating func take() -> [UInt8] {
    defer {
      output = []
      whole = nil
    }
    return output
  }

  /// What changed in a page. `before` nil: zeros. With `withBefore` all is told as words, and with each what it was.
  /// Returns whether anything had changed.
  package mutating func append(
    address: UInt64, before: UnsafeRawPointer?, now: UnsafeRawPointer
  ) -> Bool {
    let begin = output.count
    word(address | 3)
    word(0)
    var (runs, changed, index) = (0, 0, 0)
    while index < PageRecords.wordsPerPage {
      guard Self.at(now, index) != Self.at(before, index) else {
        index &+= 1
        continue
      }
      let first = index
      while index < PageRecords.wordsPerPage, Self.at(now, index) != Self.at(before, index) { index &+= 1 }
      runs &+= 1
      changed &+= index - first
      if !withBefore, runs > Self.runLimit || changed > Self.changedLimit {
        output.removeLast(output.count - begin)
        appendWhole(address: address, now)
        return true
      }
      word(UInt64(first | (index - first) << 16))
      output.append(contentsOf: UnsafeRawBufferPointer(start: now + first * 8, count: (index - first) * 8))
      if withBefore { for place in first..<index { word(Self.at(before, place)) } }
    }
    if runs == 0 {
      output.removeLast(output.count - begin)
      return false
    }
    output.withUnsafeMutableBytes {
      $0.storeBytes(of: UInt64(runs), toByteOffset: begin + 8, as: UInt64.self)
    }
    whole = nil
    return true
  }

  package mutating func appendWhole(address: UInt64, _ page: UnsafeRawPointer) {
    if let whole, whole.next == address {
      output.withUnsafeMutableBytes {
        let count = $0.loadUnaligned(fromByteOffset: whole.offset + 8, as: UInt64.self)
        $0.storeBytes(of: count + 1, toByteOffset: whole.offset + 8, as: UInt64.self)
      }
      self.whole!.next += UInt64(PageRecords.pageSize)
    } else {
      whole = (output.count, address + UInt64(PageRecords.pageSize))
      word(address | 1)
      word(1)
    }
    output.append(contentsOf: UnsafeRawBufferPointer(start: page, count: PageRecords.pageSize))
  }

  package mutating func appendDropped(address: UInt64, count: Int) {
    whole = nil
    word(address | 2)
    word(UInt64(count))
  }

  @inline(__always)
  private static func at(_ page: UnsafeRawPointer?, _ word: Int) -> UInt64 {
    page?.load(fromByteOffset: word &* 8, as: UInt64.self) ?? 0
  }

  private mutating func word(_ value: UInt64) {
    withUnsafeBytes(of: value) { output.append(contentsOf: $0) }
  }
}
