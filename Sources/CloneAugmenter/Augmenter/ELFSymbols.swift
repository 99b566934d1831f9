/// Functions of an ELF file for x86-64, by name. Only what is looked at is read of the file: libraries are large, and a
/// weak device would read them for seconds.
package struct ELFSymbols {
  private let bytes: UnsafeRawBufferPointer
  /// The entry point as the file has it: what the loader adds to it is added to every symbol.
  package let entry: UInt64
  /// PT_LOAD segments: where in the file, and at which address.
  private var segments: [(offset: UInt64, address: UInt64, fileSize: UInt64)] = []

  /// Nil: not an ELF file for x86-64. The file is to stay where it is as long as this is used.
  package init?(_ bytes: UnsafeRawBufferPointer) {
    guard bytes.count >= 64, bytes.starts(with: [0x7f, 0x45, 0x4c, 0x46, 2, 1]) else { return nil }
    self.bytes = bytes
    entry = Self.word64(bytes, 24) ?? 0
    guard Self.word16(bytes, 18) == 62, let table = Self.word64(bytes, 32), let size = Self.word16(bytes, 54),
      let count = Self.word16(bytes, 56), size >= 56
    else { return nil }
    for index in 0..<Int(count) {
      guard let at = Self.place(table, index, Int(size)), let type = Self.word32(bytes, at),
        let offset = Self.word64(bytes, at + 8), let address = Self.word64(bytes, at + 16),
        let fileSize = Self.word64(bytes, at + 32)
      else { return nil }
      if type == 1 { segments.append((offset, address, fileSize)) }
    }
  }

  /// The address, as the file has it, of what lies at an offset of the file.
  package func address(ofOffset offset: UInt64) -> UInt64? {
    for segment in segments {
      // A mapping begins at the page that the segment's first byte is in.
      let begin = segment.offset & ~4095
      if offset >= begin, offset < segment.offset &+ segment.fileSize {
        return segment.address &- segment.offset &+ offset
      }
    }
    return nil
  }

  /// The function's address as the file has it; the full table first, which a stripped file has not. An indirect
  /// function (STT_GNU_IFUNC) is none: its symbol is the resolver's.
  package func function(_ name: String) -> UInt64? {
    guard let table = Self.word64(bytes, 40), let size = Self.word16(bytes, 58),
      let count = Self.word16(bytes, 60), size >= 64
    else { return nil }
    for type in [UInt32(2), 11] {
      for index in 0..<Int(count) {
        guard let at = Self.place(table, index, Int(size)), Self.word32(bytes, at + 4) == type,
          let offset = Self.word64(bytes, at + 24), let length = Self.word64(bytes, at + 32),
          let link = Self.word32(bytes, at + 40), link < UInt32(count),
          let names = Self.place(table, Int(link), Int(size)), let text = Self.word64(bytes, names + 24),
          let textLength = Self.word64(bytes, names + 32)
        else { continue }
        if let address = find(Array(name.utf8), (offset, length), (text, textLength)) { return address }
      }
    }
    return nil
  }

  private func find(
    _ name: [UInt8], _ table: (offset: UInt64, length: UInt64), _ text: (offset: UInt64, length: UInt64)
  ) -> UInt64? {
    let total = UInt64(bytes.count)
    guard table.offset <= total, table.length <= total - table.offset, text.offset <= total,
      text.length <= total - text.offset
    else { return nil }
    for index in 0..<Int(table.length / 24) {
      let at = Int(table.offset) + index * 24
      guard bytes[at + 4] & 15 == 2, bytes.loadUnaligned(fromByteOffset: at + 6, as: UInt16.self) != 0 else {
        continue
      }
      let place = UInt64(bytes.loadUnaligned(fromByteOffset: at, as: UInt32.self))
      guard place < text.length, text.length - place > UInt64(name.count) else { continue }
      let first = Int(text.offset + place)
      guard bytes[first + name.count] == 0, bytes[first..<first + name.count].elementsEqual(name) else {
        continue
      }
      return bytes.loadUnaligned(fromByteOffset: at + 8, as: UInt64.self)
    }
    return nil
  }

  private static func place(_ table: UInt64, _ index: Int, _ size: Int) -> Int? {
    table < 1 << 40 ? Int(table) + index * size : nil
  }

  private static func word16(_ bytes: UnsafeRawBufferPointer, _ at: Int) -> UInt16? {
    guard at >= 0, at + 2 <= bytes.count else { return nil }
    return UInt16(bytes[at]) | UInt16(bytes[at + 1]) << 8
  }

  private static func word32(_ bytes: UnsafeRawBufferPointer, _ at: Int) -> UInt32? {
    guard let low = word16(bytes, at), let high = word16(bytes, at + 2) else { return nil }
    return UInt32(low) | UInt32(high) << 16
  }

  private static func word64(_ bytes: UnsafeRawBufferPointer, _ at: Int) -> UInt64? {
    guard let low = word32(bytes, at), let high = word32(bytes, at + 4) else { return nil }
    return UInt64(low) | UInt64(high) << 32
  }
}
