import Glibc
import GuestMemory

/// Who asked last, and the time it said: a client takes its round trip from its own clock, given back.
package struct RequestEcho: Equatable, Sendable {
  package var client: UInt32
  /// The client's time, and on top the time the request lay here.
  package var time: UInt64
  package init(client: UInt32, time: UInt64) {
    self.client = client
    self.time = time
  }
}

/// Fills the body of a datagram of pages.
///
///     0         4        12       16
///     | client  | time   | zero   | records …                                     client 0: no echo
///     | u32     | u64    | u32    |
///
///     0 end     | 0 |                                                             the rest is padding
///     1 zeros   | 1 | first u32 | count u16 |                                     pages of zeros
///     2 part    | 2 | page u32 | encoding u8 | total u16 | offset u16 | count u16 | bytes |
///     3 same    | 3 | page u32 | of u32 |                                         as a whole page before in this datagram
///
/// A part carries bytes of a page, raw (total 4,096) or compressed (total: its length); its offset and, but for the last
/// part of a page, its count are multiples of 16. Parts of one page may come in any order; those of raw pages also from
/// several sendings, compressed ones of one instance of the server only.
package struct PageWriter: ~Copyable {
  package static let headerBytes = 16
  package static let zerosBytes = 7
  package static let partBytes = 12
  package static let sameBytes = 9
  /// Parts are cut at multiples of this.
  package static let grain = 16
  /// A page that needs less than this in another datagram is not cut.
  package static let splitMin = 256

  package let body: UnsafeMutableRawPointer
  package private(set) var used = PageWriter.headerBytes
  private var zerosAt: Int?
  private var zerosEnd: PageIndex = 0
  /// Whole pages in this datagram: where their bytes are.
  private var whole: [(page: PageIndex, encoding: PageEncoding, at: Int, count: Int)] = []

  package init() {
    body = .allocate(byteCount: PacketHeader.pagesBodyBytesMax, alignment: 16)
    whole.reserveCapacity(PacketHeader.pagesBodyBytesMax / PageWriter.partBytes + 1)
  }
  deinit { body.deallocate() }

  package var isEmpty: Bool { used == Self.headerBytes }
  package var room: Int { PacketHeader.pagesBodyBytesMax - used }

  package mutating func begin() {
    used = Self.headerBytes
    zerosAt = nil
    whole.removeAll(keepingCapacity: true)
  }

  /// The finished body: padded to the full size, or as long as it is.
  package mutating func finish(echo: RequestEcho?, padded: Bool) -> UnsafeRawBufferPointer {
    body.storeLittle(echo?.client ?? 0, at: 0)
    body.storeLittle(echo?.time ?? 0, at: 4)
    body.storeLittle(UInt32(0), at: 12)
    if padded {
      (body + used).initializeMemory(as: UInt8.self, repeating: 0, count: room)
      used = PacketHeader.pagesBodyBytesMax
    }
    return UnsafeRawBufferPointer(start: body, count: used)
  }

  /// False: no room.
  package mutating func zeros(_ page: PageIndex) -> Bool {
    if let zerosAt, zerosEnd == page {
      let count = UnsafeRawBufferPointer(start: body, count: used).little(UInt16.self, at: zerosAt + 5)
      if count < .max {
        body.storeLittle(count + 1, at: zerosAt + 5)
        zerosEnd += 1
        return true
      }
    }
    guard room >= Self.zerosBytes else { return false }
    body.storeLittle(UInt8(1), at: used)
    body.storeLittle(UInt32(page), at: used + 1)
    body.storeLittle(UInt16(1), at: used + 5)
    zerosAt = used
    zerosEnd = page + 1
    used += Self.zerosBytes
    return true
  }

  /// Says that the page is as another in this datagram, if one is. False: none is, or no room.
  package mutating func same(_ page: PageIndex, as bytes: UnsafeRawBufferPointer, _ encoding: PageEncoding)
    -> Bool
  {
    guard room >= Self.sameBytes else { return false }
    for other in whole where other.count == bytes.count && other.encoding == encoding {
      if memcmpEqual(body + other.at, bytes.baseAddress!, bytes.count) {
        body.storeLittle(UInt8(3), at: used)
        body.storeLittle(UInt32(page), at: used + 1)
        body.storeLittle(UInt32(other.page), at: used + 5)
        used += Self.sameBytes
        return true
      }
    }
    return false
  }

  /// Writes what fits of `range` of `bytes`: how many; 0: this datagram is full for it.
  package mutating func part(
    _ page: PageIndex, _ encoding: PageEncoding, _ bytes: UnsafeRawBufferPointer, _ range: Range<Int>
  ) -> Int {
    let offset = range.lowerBound
    let rest = range.count
    let space = room - Self.partBytes
    let count: Int
    if rest <= space {
      count = rest
    } else {
      if space < Self.grain || (offset == 0 && rest <= Self.splitMin) { return 0 }
      count = space / Self.grain * Self.grain
    }
    body.storeLittle(UInt8(2), at: used)
    body.storeLittle(UInt32(page), at: used + 1)
    body.storeLittle(encoding.rawValue, at: used + 5)
    body.storeLittle(UInt16(bytes.count), at: used + 6)
    body.storeLittle(UInt16(offset), at: used + 8)
    body.storeLittle(UInt16(count), at: used + 10)
    let at = used + Self.partBytes
    (body + at).copyMemory(from: bytes.baseAddress! + offset, byteCount: count)
    used = at + count
    if count == bytes.count { whole.append((page, encoding, at, count)) }
    return count
  }
}

@inline(__always)
private func memcmpEqual(_ left: UnsafeRawPointer, _ right: UnsafeRawPointer, _ count: Int) -> Bool {
  memcmp(left, right, count) == 0
}
