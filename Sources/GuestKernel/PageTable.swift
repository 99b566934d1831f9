import GuestMemory

/// The kernel's table of `struct page`, one entry for each page of RAM: how it is laid out, and where.
struct PageTable {
  let pageStructBytes: Int
  /// RAM is described in sections of so many pages.
  let pagesPerSection: Int
  let sectionCount: Int
  private let sections: Sections
  private let typeOffset: Int
  private let orderOffset: Int
  private let linkOffset: Int
  private let freeType: UInt32
  private let orderCount: Int
  /// Where links of free blocks may point: into the table itself, or to a list's head in a node's description.
  private let addresses: Range<UInt64>
  private let nodes: [Range<UInt64>]

  init<Memory>(
    _ note: KernelNote, _ kernel: KernelMemory<Memory>, _ places: RAMPlaces
  ) throws(GuestKernelError) {
    guard try note.number("PAGESIZE") == Page.bytes else {
      throw GuestKernelError("its pages are not of 4 KiB")
    }
    let size = try note.number("SIZE(page)")
    let type = try note.number("OFFSET(page._mapcount)")
    let order = try note.number("OFFSET(page.private)")
    let link = try note.number("OFFSET(page.lru)")
    let sectionBits = try note.number("NUMBER(SECTION_SIZE_BITS)")
    orderCount = try note.number("LENGTH(zone.free_area)")
    guard (32...256).contains(size), (1...16).contains(orderCount), (22...30).contains(sectionBits),
      (0...size - 4).contains(type), (0...size - 8).contains(order), (0...size - 16).contains(link)
    else {
      throw GuestKernelError("its note has impossible sizes")
    }
    (pageStructBytes, typeOffset, orderOffset, linkOffset) = (size, type, order, link)
    freeType = UInt32(truncatingIfNeeded: try note.number("NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)"))
    let perSection = 1 << (sectionBits - 12)
    let count = Int((places.end + (1 << UInt64(sectionBits)) - 1) >> UInt64(sectionBits))
    (pagesPerSection, sectionCount) = (perSection, count)
    sections = try Sections(note)
    nodes = try Self.nodes(note, kernel)
    // Each section knows its part of the one table by where the table starts.
    guard let start = sections.tableStart(in: 0, kernel), start >> 56 == 0xff,
      start < .max - UInt64(count * perSection * size)
    else {
      throw GuestKernelError("its table of pages is not found")
    }
    addresses = start..<start + UInt64(count * perSection * size)
  }

  private static func nodes<Memory>(
    _ note: KernelNote, _ kernel: KernelMemory<Memory>
  ) throws(GuestKernelError) -> [Range<UInt64>] {
    let bytes = UInt64(max(0, try note.number("SIZE(pglist_data)")))
    var starts: [UInt64] = []
    if let only = note.symbol("contig_page_data") {
      starts = [only]
    } else if let table = note.symbol("node_data") {
      for index in 0..<min(max(0, try note.number("LENGTH(node_data)")), 64) {
        guard let node = kernel.load(UInt64.self, at: table &+ UInt64(index) * 8), node != 0 else { break }
        starts.append(node)
      }
    }
    guard !starts.isEmpty, starts.allSatisfy({ $0 < .max - bytes }) else {
      throw GuestKernelError("its memory nodes are not found")
    }
    return starts.map { $0..<$0 + bytes }
  }

  /// Virtual address of the section's first entry. Nil: there is no such section.
  func start<Memory>(ofSection section: Int, _ kernel: KernelMemory<Memory>) -> UInt64? {
    guard sections.tableStart(in: section, kernel) == addresses.lowerBound else { return nil }
    return addresses.lowerBound + UInt64(section * pagesPerSection * pageStructBytes)
  }

  enum Verdict {
    case used
    /// The first of so many free pages.
    case free(Int)
    /// It says that it is free, and the rest does not agree.
    case doubtful
  }

  /// `frame`: the page frame number of the entry at `index` of its section.
  @inline(__always)
  func judge(_ entries: UnsafeRawBufferPointer, at index: Int, frame: Int) -> Verdict {
    let entry = index * pageStructBytes
    if entries.loadUnaligned(fromByteOffset: entry + typeOffset, as: UInt32.self) != freeType { return .used }
    let order = entries.loadUnaligned(fromByteOffset: entry + orderOffset, as: UInt64.self)
    guard order < orderCount, frame & ((1 << Int(order)) - 1) == 0,
      index + (1 << Int(order)) <= pagesPerSection,
      isLink(entries.loadUnaligned(fromByteOffset: entry + linkOffset, as: UInt64.self)),
      isLink(entries.loadUnaligned(fromByteOffset: entry + linkOffset + 8, as: UInt64.self))
    else { return .doubtful }
    return .free(1 << Int(order))
  }

  private func isLink(_ pointer: UInt64) -> Bool {
    if addresses.contains(pointer) {
      return (pointer - addresses.lowerBound) % UInt64(pageStructBytes) == UInt64(linkOffset)
    }
    return nodes.contains { $0.contains(pointer) }
  }
}

/// `mem_section`: for each section of RAM a structure, in pages of them, by a table of pointers (SPARSEMEM_EXTREME).
private struct Sections {
  private let map: UInt64
  private let mapCount: Int
  private let bytes: Int
  private let offset: Int

  init(_ note: KernelNote) throws(GuestKernelError) {
    guard let map = note.symbol("mem_section") else {
      throw GuestKernelError("its sections of memory are not found")
    }
    self.map = map
    mapCount = try note.number("LENGTH(mem_section)")
    bytes = try note.number("SIZE(mem_section)")
    offset = try note.number("OFFSET(mem_section.section_mem_map)")
    guard (8...Page.bytes).contains(bytes), (0...bytes - 8).contains(offset) else {
      throw GuestKernelError("its note has impossible sizes")
    }
  }

  /// Where the table of pages starts, as the section has it: with flags in the low bits. Nil: no such section.
  func tableStart<Memory>(in section: Int, _ kernel: KernelMemory<Memory>) -> UInt64? {
    let perPage = Page.bytes / bytes
    guard section / perPage < mapCount,
      let page = kernel.load(UInt64.self, at: map &+ UInt64(section / perPage * 8)), page != 0,
      let start = kernel.load(UInt64.self, at: page &+ UInt64(section % perPage * bytes + offset)),
      start & 2 != 0  // SECTION_HAS_MEM_MAP
    else { return nil }
    return start & ~0xfff
  }
}
