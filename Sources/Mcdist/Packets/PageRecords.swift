import CLZ4
import GuestMemory

/// The body of a page datagram: whom it answers, then records until the end or a 0.
///
///     0        4             12
///     | client | client time | records …        client 0: nobody's request; client 2^32-1: a sign by multicast
///
///     zero  | 1 | first page u32 | count u16 |
///     part  | 2 | page u32 | total u16 | offset u16 | length u16 | bytes |
///
/// A page of `total` 4,096 is raw, of fewer it is one LZ4 block of that many bytes. A part may hold all of it; parts
/// of one page that came in several datagrams are put together by `PageAssembly`.
enum PageRecords {
  static let fixedBytes = 12
  static let zeroBytes = 7
  static let partBytes = 11
  /// A shorter part than this is left to the next datagram.
  static let partMin = 128

  enum Record {
    case zero(PageRange)
    case part(page: PageIndex, total: Int, offset: Int, bytes: UnsafeRawBufferPointer)
  }

  /// Nil at the end; throws for what is no record of a RAM of `pageCount` pages.
  static func next(_ body: inout BodyReader, pageCount: Int) throws(Malformed) -> Record? {
    guard let kind: UInt8 = body.take(), kind != 0 else { return nil }
    switch kind {
    case 1:
      guard let first: UInt32 = body.take(), let count: UInt16 = body.take(), count > 0,
        Int(first) + Int(count) <= pageCount
      else { throw Malformed() }
      return .zero(Int(first)..<Int(first) + Int(count))
    case 2:
      guard let page: UInt32 = body.take(), let total: UInt16 = body.take(), let offset: UInt16 = body.take(),
        let length: UInt16 = body.take(), let bytes = body.take(Int(length)), Int(page) < pageCount,
        (1...Page.bytes).contains(Int(total)), length > 0, Int(offset) + Int(length) <= Int(total)
      else { throw Malformed() }
      return .part(page: Int(page), total: Int(total), offset: Int(offset), bytes: bytes)
    default: throw Malformed()
    }
  }

  struct Malformed: Error {}
}

/// Compresses and decompresses single pages.
enum PageCompression {
  /// Answers how many bytes it took, at most `Page.bytes - 1`; nil: it does not get smaller, send it raw.
  static func compress(_ page: UnsafeRawPointer, into out: UnsafeMutableRawPointer) -> Int? {
    let count = LZ4_compress_default(
      page.assumingMemoryBound(to: CChar.self), out.assumingMemoryBound(to: CChar.self), CInt(Page.bytes),
      CInt(Page.bytes - Page.bytes / 8))
    return count > 0 ? Int(count) : nil
  }

  /// False: it is not a page.
  static func decompress(_ bytes: UnsafeRawBufferPointer, into page: UnsafeMutableRawPointer) -> Bool {
    LZ4_decompress_safe(
      bytes.baseAddress!.assumingMemoryBound(to: CChar.self), page.assumingMemoryBound(to: CChar.self),
      CInt(bytes.count), CInt(Page.bytes)) == CInt(Page.bytes)
  }
}

/// Puts the parts of pages together. At most `slots` pages at a time; the one that began first gives way, and is asked
/// for again.
struct PageAssembly {
  private struct Slot {
    /// -1: free.
    var page = -1
    /// Of the sender: parts of two runs of a server are never mixed.
    var instance: UInt64 = 0
    var total = 0
    var have = 0
    var age: UInt64 = 0
    /// A bit for each 8 bytes.
    var covered = [UInt64](repeating: 0, count: Page.bytes / 8 / 64)
  }
  private var slots: [Slot]
  private let buffer: UnsafeMutableRawPointer
  private var begun: UInt64 = 0

  init(slots count: Int = 64) {
    slots = Array(repeating: Slot(), count: count)
    buffer = .allocate(byteCount: count * Page.bytes, alignment: 4096)
  }

  func deallocate() { buffer.deallocate() }

  /// Adds a part. Answers the page's encoded bytes when it is whole, valid until the next call.
  mutating func add(
    page: PageIndex, total: Int, offset: Int, bytes: UnsafeRawBufferPointer, instance: UInt64
  ) -> UnsafeRawBufferPointer? {
    if offset == 0, bytes.count == total { return bytes }
    // Parts begin and end at multiples of 8, but for the last end.
    guard offset % 8 == 0, bytes.count % 8 == 0 || offset + bytes.count == total else { return nil }
    let index = slot(of: page, total: total, instance: instance)
    (buffer + index * Page.bytes + offset).copyMemory(from: bytes.baseAddress!, byteCount: bytes.count)
    for unit in offset / 8..<(offset + bytes.count + 7) / 8
    where slots[index].covered[unit >> 6] >> UInt64(unit & 63) & 1 == 0 {
      slots[index].covered[unit >> 6] |= 1 << UInt64(unit & 63)
      slots[index].have += 1
    }
    guard slots[index].have == (total + 7) / 8 else { return nil }
    slots[index].page = -1
    return UnsafeRawBufferPointer(start: buffer + index * Page.bytes, count: total)
  }

  private mutating func slot(of page: PageIndex, total: Int, instance: UInt64) -> Int {
    var chosen = 0
    for index in slots.indices {
      if slots[index].page == page {
        if slots[index].total == total, slots[index].instance == instance { return index }
        chosen = index
        break
      }
      if slots[chosen].page >= 0, slots[index].page < 0 || slots[index].age < slots[chosen].age {
        chosen = index
      }
    }
    begun += 1
    slots[chosen].page = page
    slots[chosen].instance = instance
    slots[chosen].total = total
    slots[chosen].have = 0
    slots[chosen].age = begun
    for word in slots[chosen].covered.indices { slots[chosen].covered[word] = 0 }
    return chosen
  }
}
