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

  /// The function's address as the file has it. What the file exports is asked by its hash table, which takes a page or
  /// two of a large library; then the full table is read, which a stripped file has not. An indirect function
  /// (STT_GNU_IFUNC) is none: its symbol is the resolver's.
  package func function(_ name: String) -> UInt64? {
    guard let table = Self.word64(bytes, 40), let size = Self.word16(bytes, 58),
      let count = Self.word16(bytes, 60), size >= 64
    else { return nil }
    let name = Array(name.utf8)
    var isHashed = false
    for type in [Self.hashTable, Self.fullTable, Self.exportedTable] {
      if type == Self.exportedTable && isHashed { break }
      for index in 0..<Int(count) {
        guard let at = Self.place(table, index, Int(size)), Self.word32(bytes, at + 4) == type,
          let section = Section(bytes, at), let link = Self.place(table, Int(section.link), Int(size)),
          section.link < UInt32(count), let linked = Section(bytes, link)
        else { continue }
        guard type == Self.hashTable else {
          if let address = find(name, section, linked) { return address }
          continue
        }
        guard let names = Self.place(table, Int(linked.link), Int(size)), linked.link < UInt32(count),
          let text = Section(bytes, names)
        else { continue }
        isHashed = true
        if let address = find(name, hash: section, linked, text) { return address }
      }
    }
    return nil
  }

  private static let fullTable: UInt32 = 2
  private static let exportedTable: UInt32 = 11
  /// SHT_GNU_HASH.
  private static let hashTable: UInt32 = 0x6fff_fff6

  private struct Section {
    var offset: Int
    var length: Int
    var link: UInt32

    /// Nil: it is not within the file.
    init?(_ bytes: UnsafeRawBufferPointer, _ header: Int) {
      guard let offset = word64(bytes, header + 24), let length = word64(bytes, header + 32),
        let link = word32(bytes, header + 40), offset <= UInt64(bytes.count),
        length <= UInt64(bytes.count) - offset
      else { return nil }
      self.offset = Int(offset)
      self.length = Int(length)
      self.link = link
    }
  }

  /// By the hash table of DT_GNU_HASH: a filter of 64-bit words, buckets of the first symbol, and a hash for each
  /// symbol, whose lowest bit says that it is its bucket's last.
  private func find(_ name: [UInt8], hash: Section, _ table: Section, _ text: Section) -> UInt64? {
    func word(_ index: Int) -> UInt32? {
      index >= 0 && index < hash.length / 4 ? Self.word32(bytes, hash.offset + 4 * index) : nil
    }
    guard let buckets = word(0), let first = word(1), let filters = word(2), let shift = word(3),
      buckets > 0, filters > 0, shift < 32
    else { return nil }
    let value = name.reduce(UInt32(5381)) { $0 &* 33 &+ UInt32($1) }
    let filter = 4 + 2 * Int(value / 64 % filters)
    guard let low = word(filter), let high = word(filter + 1) else { return nil }
    let bits = UInt64(high) << 32 | UInt64(low)
    guard bits >> UInt64(value % 64) & 1 == 1, bits >> UInt64((value >> shift) % 64) & 1 == 1 else {
      return nil
    }
    let chains = 4 + 2 * Int(filters) + Int(buckets)
    guard var index = word(chains - Int(buckets) + Int(value % buckets)), index >= first else { return nil }
    while let own = word(chains + Int(index - first)) {
      if own | 1 == value | 1, let address = address(ofSymbol: Int(index), name, table, text) {
        return address
      }
      guard own & 1 == 0, index < UInt32.max else { return nil }
      index += 1
    }
    return nil
  }

  private func find(_ name: [UInt8], _ table: Section, _ text: Section) -> UInt64? {
    for index in 0..<table.length / 24 {
      if let address = address(ofSymbol: index, name, table, text) { return address }
    }
    return nil
  }

  /// Of the table's symbol, if it is a function of this name that is defined here.
  private func address(ofSymbol index: Int, _ name: [UInt8], _ table: Section, _ text: Section) -> UInt64? {
    guard index < table.length / 24 else { return nil }
    let at = table.offset + index * 24
    guard bytes[at + 4] & 15 == 2, bytes.loadUnaligned(fromByteOffset: at + 6, as: UInt16.self) != 0 else {
      return nil
    }
    let place = Int(bytes.loadUnaligned(fromByteOffset: at, as: UInt32.self))
    guard place < text.length, text.length - place > name.count else { return nil }
    let first = text.offset + place
    guard bytes[first + name.count] == 0, bytes[first..<first + name.count].elementsEqual(name) else {
      return nil
    }
    return bytes.loadUnaligned(fromByteOffset: at + 8, as: UInt64.self)
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
