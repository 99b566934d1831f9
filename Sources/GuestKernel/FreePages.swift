import GuestMemory

/// Finds the pages that a Linux guest's page allocator had free, in the kernel's own description of its memory: what
/// makedumpfile leaves out of a dump.
///
/// The kernel keeps a `struct page` for each page of RAM. The first one of a free block of 2^n pages says that it is free,
/// holds n, and is a link of one of the allocator's lists. All three must agree. The memory must be that of one
/// instant at which no virtual CPU ran: then nothing is free that somebody uses, whatever the CPUs were about, for the
/// allocator marks a block as the last thing when it frees it, and takes the mark away first when it gives it out.
///
/// What a page that is free holds does not matter to a guest, save if its kernel checks it: with `page_poison` or
/// `debug_pagealloc` this must not be used. With `init_on_free` such a page is zero.
public struct FreePages: Sendable {
  /// In pages of the RAM's block.
  public private(set) var pages: PageBitmap

  /// A block may be in the middle of being freed, at most one for each virtual CPU. More than this: what was read is
  /// not what it seems to be.
  private static let doubtfulMax = 64

  public init(
    in memory: some AddressSpace, places: RAMPlaces, note place: KernelNotePlace
  ) throws(GuestKernelError) {
    let note = try KernelNote(in: memory, at: place)
    let kernel = try KernelMemory(memory, note)
    let table = try PageTable(note, kernel, places)
    pages = PageBitmap(pageCount: Page.count(ofBytes: places.bytes))
    var doubtful = 0
    var entries = [UInt8](repeating: 0, count: table.pagesPerSection * table.pageStructBytes)
    for section in 0..<table.sectionCount {
      guard let start = table.start(ofSection: section, kernel) else { continue }
      // Not here: of a clone whose origin is on another host. Its pages are then taken to be in use.
      guard entries.withUnsafeMutableBytes({ kernel.read(at: start, into: $0) }) else { continue }
      let first = section * table.pagesPerSection
      entries.withUnsafeBytes { bytes in
        var index = 0
        while index < table.pagesPerSection {
          switch table.judge(bytes, at: index, frame: first + index) {
          case .used: index += 1
          case .doubtful:
            doubtful += 1
            index += 1
          case let .free(count):
            insert(first + index, count, places)
            index += count
          }
        }
      }
      guard doubtful <= Self.doubtfulMax else {
        throw GuestKernelError("its lists of free pages do not agree with themselves")
      }
    }
  }

  /// Frames that are no RAM are no page's.
  private mutating func insert(_ frame: Int, _ count: Int, _ places: RAMPlaces) {
    let size = UInt64(Page.bytes)
    if let offset = places.offset(of: UInt64(frame) * size, count: count * Page.bytes) {
      let page = Int(offset / size)
      pages.insert(contentsOf: page..<page + count)
    }
  }
}
