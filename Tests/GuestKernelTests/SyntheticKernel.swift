import GuestKernel

/// The memory of a guest with no more in it than what describes its memory: a note, page tables, sections of 4 MiB, the
/// table of pages, one memory node. All of it is at the beginning of RAM, below `firstFrame`.
final class SyntheticKernel: AddressSpace {
  var bytes: [UInt8]
  let places: RAMPlaces
  var note: [(key: String, value: String)]
  let notePlace = KernelNotePlace(address: 0x1000, bytes: 4096)
  /// Physical ranges that can not be read.
  var unreadable: [Range<UInt64>] = []

  static let pageStructBytes = 64
  static let pagesPerSection = 1024
  static let tableStart: UInt64 = 0xffff_ea00_0000_0000
  private static let directStart: UInt64 = 0xffff_8880_0000_0000
  private static let imageStart: UInt64 = 0xffff_ffff_8000_0000
  private static let (root, sectionRoots, sections, nodeTable, node) =
    (0x3000 as UInt64, 0x4000 as UInt64, 0x5000 as UInt64, 0x6000 as UInt64, 0x7000 as UInt64)
  /// Frames from here on are free for the test to give a meaning.
  static let firstFrame = 512
  /// Where a list's head could be.
  static let listHead = directStart + node + 0x100

  private var nextTable: UInt64 = 0x8000
  private let tablePhysical: UInt64 = 0x40000

  /// RAM in whole sections; `lowBytes` of it at address 0.
  init(mebibytes: Int = 16, lowBytes: UInt64 = .max, physicalBase: UInt64 = 0) {
    places = RAMPlaces(bytes: UInt64(mebibytes) << 20, lowBytes: lowBytes)
    bytes = [UInt8](repeating: 0, count: mebibytes << 20)
    let symbol = { (address: UInt64) in String(address, radix: 16) }
    note = [
      ("OSRELEASE", "6.1.0-test"), ("PAGESIZE", "4096"),
      ("SYMBOL(init_top_pgt)", symbol(Self.imageStart + Self.root &- physicalBase)),
      ("SYMBOL(mem_section)", symbol(Self.directStart + Self.sectionRoots)), ("LENGTH(mem_section)", "4096"),
      ("SIZE(mem_section)", "32"), ("OFFSET(mem_section.section_mem_map)", "0"),
      ("NUMBER(SECTION_SIZE_BITS)", "22"), ("SIZE(page)", "64"), ("SIZE(pglist_data)", "4096"),
      ("OFFSET(page.lru)", "8"), ("OFFSET(page._mapcount)", "48"), ("OFFSET(page.private)", "40"),
      ("LENGTH(zone.free_area)", "11"), ("NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)", "-129"),
      ("NUMBER(phys_base)", "\(Int64(bitPattern: physicalBase))"), ("NUMBER(pgtable_l5_enabled)", "0"),
      ("NUMBER(sme_mask)", "0"), ("SYMBOL(node_data)", symbol(Self.directStart + Self.nodeTable)),
      ("LENGTH(node_data)", "1024"),
    ]
    for page in 0..<128 { map(Self.directStart + UInt64(page) << 12, to: UInt64(page) << 12) }
    let frames = sectionCount * Self.pagesPerSection
    for offset in stride(from: 0, to: UInt64(frames * Self.pageStructBytes), by: 4096) {
      map(Self.tableStart + offset, to: tablePhysical + offset)
    }
    store(Self.directStart + Self.sections, at: Self.sectionRoots)
    for section in 0..<sectionCount { store(Self.tableStart | 0xf, at: Self.sections + UInt64(section) * 32) }
    store(Self.directStart + Self.node, at: Self.nodeTable)
    for frame in 0..<frames { store(UInt32.max, at: entry(frame) + 48) }
  }

  /// Of the part that begins at 4 GiB the sections are not given: a test would need a table of 64 MiB.
  var sectionCount: Int { min(bytes.count >> 22, 8) }

  func read(at address: UInt64, into buffer: UnsafeMutableRawBufferPointer) -> Bool {
    guard let offset = places.offset(of: address, count: buffer.count),
      !unreadable.contains(where: { $0.overlaps(address..<address + UInt64(buffer.count)) })
    else { return false }
    bytes.withUnsafeBytes {
      buffer.copyMemory(from: .init(rebasing: $0[Int(offset)..<Int(offset) + buffer.count]))
    }
    return true
  }

  func store<Number: FixedWidthInteger>(_ number: Number, at address: UInt64) {
    for index in 0..<MemoryLayout<Number>.size {
      bytes[Int(address) + index] = UInt8(truncatingIfNeeded: number >> (8 * index))
    }
  }

  /// Physical address of the frame's `struct page`.
  func entry(_ frame: Int) -> UInt64 { tablePhysical + UInt64(frame * Self.pageStructBytes) }

  /// A free block, linked to a list's head on one side and to another block on the other.
  func free(_ frame: Int, order: UInt64) {
    store(UInt32(bitPattern: -129), at: entry(frame) + 48)
    store(order, at: entry(frame) + 40)
    store(Self.listHead, at: entry(frame) + 8)
    store(Self.tableStart + UInt64(Self.firstFrame * Self.pageStructBytes) + 8, at: entry(frame) + 16)
  }

  func writeNote() {
    let text = note.map { "\($0.key)=\($0.value)\n" }.joined()
    store(UInt32(11), at: 0x1000)
    store(UInt32(text.utf8.count), at: 0x1004)
    store(UInt32(0), at: 0x1008)
    for (index, byte) in "VMCOREINFO\0".utf8.enumerated() { bytes[0x100c + index] = byte }
    for (index, byte) in text.utf8.enumerated() { bytes[0x1018 + index] = byte }
  }

  func set(_ key: String, _ value: String?) {
    note.removeAll { $0.key == key }
    if let value { note.append((key, value)) }
  }

  private func map(_ virtual: UInt64, to physical: UInt64) {
    var table = Self.root
    for shift in [39, 30, 21] as [UInt64] {
      let place = table + (virtual >> shift & 511) * 8
      var next = bytes[Int(place)..<Int(place) + 8].reversed().reduce(0 as UInt64) { $0 << 8 | UInt64($1) }
      if next == 0 {
        next = nextTable | 3
        nextTable += 4096
        store(next, at: place)
      }
      table = next & ~0xfff
    }
    store(physical | 3, at: table + (virtual >> 12 & 511) * 8)
  }
}
