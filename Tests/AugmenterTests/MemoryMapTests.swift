import Augmenter
import Testing

@Suite("Memory maps and what leads from one to another")
struct MemoryMapTests {
  private static let text = """
    555555554000-555555556000 r-xp 00001000 08:01 1234                       /usr/bin/a program
    555555557000-555555578000 rw-p 00000000 00:00 0                          [heap]
    7ffff7a00000-7ffff7c00000 rw-p 00000000 00:00 0 
    7ffff7d00000-7ffff7d01000 rw-s 00000000 00:05 77                         /dev/shm/x (deleted)
    7ffffffde000-7ffffffff000 rw-p 00000000 00:00 0                          [stack]
    7ffffffff000-7ffffffff001 r-xp 00000000 00:00 0                          [vdso]

    """

  @Test("The lines of /proc/PID/maps; the kernel's own mappings are left out")
  func parse() throws {
    let mappings = try #require(MemoryMap.parse(Array(Self.text.utf8)))
    #expect(mappings.map(\.kind) == [.file, .heap, .anonymous, .file, .stack])
    #expect(mappings[0].path == "/usr/bin/a program" && mappings[0].protection == 5)
    #expect(mappings[0].offset == 0x1000 && mappings[0].inode == 1234 && mappings[0].device == 8 << 32 | 1)
    #expect(mappings[3].isWritableShared && !mappings[2].isWritableShared)
    #expect(MemoryMap.parse(Array("nonsense\n".utf8)) == nil)
    #expect(MemoryMap.parse(Array("2000-1000 rw-p 0 00:00 0 \n".utf8)) == nil)
  }

  private func map(_ start: UInt64, _ end: UInt64, _ protection: UInt8 = 3, _ kind: Mapping.Kind = .anonymous)
    -> Mapping
  { Mapping(start: start, end: end, protection: protection, kind: kind) }

  @Test("New, removed, protected and replaced parts")
  func difference() {
    let before = [map(0x1000, 0x5000), map(0x8000, 0x9000)]
    let file = Mapping(
      start: 0x8000, end: 0x9000, protection: 1, kind: .file, offset: 0x3000, device: 1, inode: 2, path: "/a")
    let after = [map(0x1000, 0x2000), map(0x3000, 0x4000, 1), map(0x4000, 0x7000), file]
    let difference = MapDifference(from: before, to: after, breakBefore: 0, breakAfter: 0)
    #expect(difference.removed == [0x2000..<0x3000])
    #expect(difference.protected == [map(0x3000, 0x4000, 1)])
    #expect(difference.added == [map(0x5000, 0x7000)])
    #expect(difference.replaced == [file])
    #expect(MapDifference(from: after, to: after, breakBefore: 0, breakAfter: 0).isEmpty)
  }

  @Test("Memory below the program break is the break's business, the stack's growth its own")
  func heapAndStack() {
    let before = [map(0x1000, 0x3000, 3, .heap), map(0xf0000, 0x100000, 3, .stack)]
    let after = [map(0x1000, 0x6000, 3, .heap), map(0xe0000, 0x100000, 3, .stack)]
    let growth = MapDifference(from: before, to: after, breakBefore: 0x2800, breakAfter: 0x5fff)
    #expect(growth.added.isEmpty && growth.stackGrowth == 0xe0000..<0xf0000)
    let back = MapDifference(from: after, to: before, breakBefore: 0x5fff, breakAfter: 0x2800)
    #expect(back.removed == [0xe0000..<0xf0000] && back.added.isEmpty)
  }

  @Test("Random maps: what the difference says makes the one out of the other")
  func random() {
    for seed in 1...300 as ClosedRange<UInt64> {
      var numbers = Numbers(seed: seed)
      let (before, after) = (Self.randomMap(&numbers), Self.randomMap(&numbers))
      let difference = MapDifference(from: before, to: after, breakBefore: 0, breakAfter: 0)
      var pages: [UInt64: UInt8] = [:]
      for mapping in before { for page in mapping.start..<mapping.end { pages[page] = mapping.protection } }
      for range in difference.removed { for page in range { pages[page] = nil } }
      for mapping in difference.added {
        for page in mapping.start..<mapping.end {
          #expect(pages[page] == nil)
          pages[page] = mapping.protection
        }
      }
      for mapping in difference.protected {
        for page in mapping.start..<mapping.end { pages[page] = mapping.protection }
      }
      var wanted: [UInt64: UInt8] = [:]
      for mapping in after { for page in mapping.start..<mapping.end { wanted[page] = mapping.protection } }
      #expect(pages == wanted, "seed \(seed)")
    }
  }

  private static func randomMap(_ numbers: inout Numbers) -> [Mapping] {
    var mappings: [Mapping] = []
    var at: UInt64 = 0
    while at < 60 {
      let length = 1 + numbers.next(6)
      if numbers.next(3) > 0 {
        mappings.append(Mapping(start: at, end: at + length, protection: UInt8(numbers.next(3))))
      }
      at += length
    }
    return mappings
  }
}

/// xorshift64*: the same numbers from the same seed.
struct Numbers {
  private var state: UInt64

  init(seed: UInt64) { state = seed &* 0x9e37_79b9_7f4a_7c15 | 1 }

  mutating func next(_ limit: UInt64) -> UInt64 {
    state ^= state >> 12
    state ^= state << 25
    state ^= state >> 27
    return ((state &* 0x2545_f491_4f6c_dd1d) >> 11) % limit
  }
}
