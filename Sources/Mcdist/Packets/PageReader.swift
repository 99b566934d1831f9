import GuestMemory

/// One record of a datagram of pages; `PageWriter` draws them. Byte ranges are within the body.
package enum PageRecord: Equatable, Sendable {
  case zeros(PageRange)
  case part(page: PageIndex, encoding: PageEncoding, total: Int, offset: Int, bytes: Range<Int>)
  case same(page: PageIndex, of: PageIndex)
}

/// Reads the records of a datagram's body, which may be anything.
package struct PageReader {
  package let body: UnsafeRawBufferPointer
  package let pageCount: Int
  package let echo: RequestEcho?
  private var at = PageWriter.headerBytes

  /// Nil: the body is malformed anywhere; then none of it counts.
  package init?(_ body: UnsafeRawBufferPointer, pageCount: Int) {
    guard body.count > PageWriter.headerBytes, body.little(UInt32.self, at: 12) == 0 else { return nil }
    self.body = body
    self.pageCount = pageCount
    let client = body.little(UInt32.self, at: 0)
    echo = client == 0 ? nil : RequestEcho(client: client, time: body.little(UInt64.self, at: 4))
    var check = self
    while let step = check.step() {
      if case .malformed = step { return nil }
    }
  }

  /// Nil: the end.
  package mutating func next() -> PageRecord? {
    guard case .record(let record) = step() else { return nil }
    return record
  }

  private enum Step {
    case record(PageRecord)
    case malformed
  }

  private mutating func step() -> Step? {
    guard at < body.count, body[at] != 0 else { return nil }
    let start = at
    let left = body.count - start
    switch body[start] {
    case 1:
      guard left >= PageWriter.zerosBytes else { return .malformed }
      let first = Int(body.little(UInt32.self, at: start + 1))
      let count = Int(body.little(UInt16.self, at: start + 5))
      guard count > 0, first + count <= pageCount else { return .malformed }
      at = start + PageWriter.zerosBytes
      return .record(.zeros(first..<first + count))
    case 2:
      guard left >= PageWriter.partBytes, let encoding = PageEncoding(rawValue: body[start + 5]) else {
        return .malformed
      }
      let page = Int(body.little(UInt32.self, at: start + 1))
      let total = Int(body.little(UInt16.self, at: start + 6))
      let offset = Int(body.little(UInt16.self, at: start + 8))
      let count = Int(body.little(UInt16.self, at: start + 10))
      let totalIsRight = encoding == .raw ? total == Page.bytes : total <= PageCompressor.compressedMax
      guard page < pageCount, totalIsRight, count > 0, offset % PageWriter.grain == 0,
        offset + count <= total,
        offset + count == total || count % PageWriter.grain == 0, count <= left - PageWriter.partBytes
      else { return .malformed }
      let bytes = start + PageWriter.partBytes
      at = bytes + count
      return .record(.part(page: page, encoding: encoding, total: total, offset: offset, bytes: bytes..<at))
    case 3:
      guard left >= PageWriter.sameBytes else { return .malformed }
      let page = Int(body.little(UInt32.self, at: start + 1))
      let other = Int(body.little(UInt32.self, at: start + 5))
      guard page < pageCount, other < pageCount, page != other else { return .malformed }
      at = start + PageWriter.sameBytes
      return .record(.same(page: page, of: other))
    default:
      return .malformed
    }
  }
}
