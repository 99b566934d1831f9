import GuestMemory

/// Pages of which some parts have come: at most `places`, each page has one place only, and a later page that has the
/// same takes it.
package struct Reassembly: ~Copyable {
  package static let places = 512

  private struct Place {
    var page: PageIndex = -1
    var encoding = PageEncoding.raw
    var total = 0
    /// Of compressed ones only: who compressed it.
    var instance: UInt64 = 0
    var grains = SIMD4<UInt64>.zero
  }

  private var table = [Place](repeating: Place(), count: Self.places)
  private let bytes: UnsafeMutableRawPointer

  package init() { bytes = .allocate(byteCount: Self.places * Page.bytes, alignment: 4096) }
  deinit { bytes.deallocate() }

  /// Takes one part in. The whole encoded page if this was the last that lacked: valid until the next call.
  package mutating func add(
    page: PageIndex, encoding: PageEncoding, total: Int, offset: Int, part: UnsafeRawBufferPointer,
    instance: UInt64
  ) -> UnsafeRawBufferPointer? {
    if part.count == total { return part }
    let index = page & (Self.places - 1)
    let source = encoding == .zstd ? instance : 0
    let start = bytes + index * Page.bytes
    var place = table[index]
    if place.page != page || place.encoding != encoding || place.total != total || place.instance != source {
      place = Place(page: page, encoding: encoding, total: total, instance: source)
    }
    (start + offset).copyMemory(from: part.baseAddress!, byteCount: part.count)
    let first = offset / PageWriter.grain
    let end = (offset + part.count + PageWriter.grain - 1) / PageWriter.grain
    place.grains |= Self.mask(first..<end)
    let isWhole = place.grains == Self.mask(0..<(total + PageWriter.grain - 1) / PageWriter.grain)
    if isWhole { place = Place() }
    table[index] = place
    return isWhole ? UnsafeRawBufferPointer(start: start, count: total) : nil
  }

  /// The pieces (`PageParts`) of the page that have not come.
  package func lacking(_ page: PageIndex) -> UInt16 {
    let place = table[page & (Self.places - 1)]
    guard place.page == page else { return PageParts.all }
    let wanted = Self.mask(0..<(place.total + PageWriter.grain - 1) / PageWriter.grain)
    let lacking = wanted & ~place.grains
    var result: UInt16 = 0
    for piece in 0..<16 where lacking[piece / 4] >> UInt64(piece % 4 * 16) & 0xffff != 0 {
      result |= 1 << piece
    }
    return result
  }

  /// Ones at `grains`, of 256.
  private static func mask(_ grains: Range<Int>) -> SIMD4<UInt64> {
    var result = SIMD4<UInt64>.zero
    for word in 0..<4 {
      let low = max(grains.lowerBound - word * 64, 0)
      let high = min(grains.upperBound - word * 64, 64)
      guard low < high else { continue }
      result[word] = (high == 64 ? ~0 : (1 << UInt64(high)) - 1) & (~0 << UInt64(low))
    }
    return result
  }
}
