import GuestKernel
import GuestMemory
import Testing

@Suite struct FreePagesTests {
  private func survey(_ kernel: SyntheticKernel) throws -> [PageRange] {
    kernel.writeNote()
    return try FreePages(in: kernel, places: kernel.places, note: kernel.notePlace).pages.runs
  }

  /// What is refused, as the user reads it.
  private func refusal(_ kernel: SyntheticKernel) -> String {
    do {
      return "free: \(try survey(kernel))"
    } catch {
      return "\(error)"
    }
  }

  @Test("Blocks of all orders are found, and nothing beside them")
  func blocks() throws {
    let kernel = SyntheticKernel()
    kernel.free(600, order: 0)
    kernel.free(602, order: 1)
    kernel.free(1024, order: 10)
    kernel.free(2560, order: 9)
    #expect(try survey(kernel) == [600..<601, 602..<604, 1024..<2048, 2560..<3072])
  }

  @Test(
    "The kernel's image may lie elsewhere than it was linked for",
    arguments: [0, ~0x3000 &+ 1, ~0x10_0000 &+ 1] as [UInt64])
  func physicalBase(_ base: UInt64) throws {
    let kernel = SyntheticKernel(physicalBase: base)
    kernel.free(700, order: 2)
    #expect(try survey(kernel) == [700..<704])
  }

  @Test("A block that does not agree with itself is in use: it is being freed just now")
  func doubtful() throws {
    let kernel = SyntheticKernel()
    for frame in stride(from: 600, to: 700, by: 20) { kernel.free(frame, order: 0) }
    kernel.store(11 as UInt64, at: kernel.entry(600) + 40)  // no such order
    kernel.store(3 as UInt64, at: kernel.entry(620) + 40)  // 620 is no multiple of 8
    kernel.store(0xdead_0000_0000_0100 as UInt64, at: kernel.entry(640) + 8)  // LIST_POISON1
    kernel.store(SyntheticKernel.tableStart + 9, at: kernel.entry(660) + 16)  // between two entries
    #expect(try survey(kernel) == [680..<681])
  }

  @Test("Too many of them: it is not understood, and nothing is free")
  func tooManyDoubtful() {
    let kernel = SyntheticKernel()
    for frame in 600..<700 {
      kernel.free(frame, order: 0)
      kernel.store(0 as UInt64, at: kernel.entry(frame) + 8)
    }
    #expect(refusal(kernel) == "its lists of free pages do not agree with themselves")
  }

  @Test("What can not be read here is in use")
  func unreadable() throws {
    let kernel = SyntheticKernel()
    kernel.free(600, order: 0)
    kernel.free(1100, order: 0)
    kernel.unreadable = [kernel.entry(1024)..<kernel.entry(1025)]
    #expect(try survey(kernel) == [600..<601])
  }

  @Test("RAM that has no room below 4 GiB goes on from there in the block")
  func places() {
    let places = RAMPlaces(bytes: 4 << 30, lowBytes: 3 << 30)
    #expect(places.offset(of: 4096, count: 8192) == 4096)
    #expect(places.offset(of: (3 << 30) - 4096, count: 8192) == nil)
    #expect(places.offset(of: 3 << 30, count: 1) == nil)
    #expect(places.offset(of: 4 << 30, count: 4096) == 3 << 30)
    #expect(places.offset(of: (5 << 30) - 4096, count: 4096) == (4 << 30) - 4096)
    #expect(places.offset(of: 5 << 30, count: 1) == nil)
    #expect(places.offset(of: .max - 1, count: 4096) == nil)
  }

  @Test("Frames between the two parts of RAM are nobody's pages")
  func hole() throws {
    let kernel = SyntheticKernel(mebibytes: 16, lowBytes: 8 << 20)
    kernel.free(600, order: 0)
    kernel.free(2050, order: 0)
    #expect(try survey(kernel) == [600..<601])
  }

  @Test(
    "A note that lacks or twists what is needed is refused with what it is",
    arguments: [
      ("PAGESIZE", "65536", "its pages are not of 4 KiB"),
      ("SIZE(page)", nil, "its note lacks SIZE(page)"),
      ("SIZE(page)", "0", "its note has impossible sizes"),
      ("OFFSET(page.lru)", "60", "its note has impossible sizes"),
      ("NUMBER(SECTION_SIZE_BITS)", "63", "its note has impossible sizes"),
      ("SIZE(mem_section)", "-8", "its note has impossible sizes"),
      ("SYMBOL(init_top_pgt)", nil, "its note names no page table"),
      ("SYMBOL(mem_section)", "ffffffff", "its table of pages is not found"),
      ("SYMBOL(node_data)", nil, "its memory nodes are not found"),
      ("NUMBER(sme_mask)", "140737488355328", "its memory is encrypted"),
    ] as [(String, String?, String)])
  func twisted(_ key: String, _ value: String?, _ text: String) {
    let kernel = SyntheticKernel()
    kernel.set(key, value)
    #expect(refusal(kernel) == text)
  }

  @Test("A note that is none, or not where it is said to be")
  func noNote() {
    let kernel = SyntheticKernel()
    func refusal(_ place: KernelNotePlace) -> String {
      do {
        _ = try FreePages(in: kernel, places: kernel.places, note: place)
        return "free"
      } catch { return "\(error)" }
    }
    #expect(refusal(.init(address: 0x1000, bytes: 4096)) == "there is no VMCOREINFO at 4096")
    #expect(refusal(.init(address: 1 << 40, bytes: 4096)) == "its note at \(1 << 40) can not be read")
    #expect(refusal(.init(address: 0x1000, bytes: 1 << 30)) == "a note of \(1 << 30) bytes")
    #expect(refusal(.init(address: 0x1000, bytes: 3)) == "a note of 3 bytes")
  }

  @Test("Whatever a guest has written there, the host only reads, and comes to an end", arguments: 1...20)
  func garbage(_ seed: UInt64) {
    let kernel = SyntheticKernel()
    for frame in stride(from: 512, to: 3072, by: 8) { kernel.free(frame, order: UInt64(frame / 8 % 4)) }
    kernel.writeNote()
    let whole = kernel.bytes
    var state = seed
    for _ in 0..<50 {
      kernel.bytes = whole
      for _ in 0..<20 {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        let place = Int(state >> 33) % 0x20000 + 0x1000
        kernel.bytes[place] = UInt8(truncatingIfNeeded: state >> 25)
      }
      guard let free = try? FreePages(in: kernel, places: kernel.places, note: kernel.notePlace) else {
        continue
      }
      #expect(free.pages.pageCount == kernel.bytes.count / 4096)
    }
  }
}
