import Foundation
import GuestMemory
import Replicator
import Testing

/// A checkpoint's file: what is written is read, and nothing else is.
@Suite struct CheckpointTests {
  static let pageCount = 512

  /// Memory before and after, with changes of every kind.
  struct Memories {
    var before: [UInt8]
    var after: [UInt8]

    init(seed: UInt64) {
      var random = Generator(state: seed)
      before = [UInt8](repeating: 0, count: CheckpointTests.pageCount * Page.bytes)
      for page in 0..<CheckpointTests.pageCount where random.next() % 3 > 0 {
        Self.fill(&before, page, &random)
      }
      after = before
      for page in 0..<CheckpointTests.pageCount {
        switch random.next() % 6 {
        case 0: Self.fill(&after, page, &random)
        case 1: for at in 0..<Page.bytes { after[page * Page.bytes + at] = 0 }
        case 2:
          for _ in 0..<Int(1 + random.next() % 900) {
            after[page * Page.bytes + Int(random.next() % 4096)] = UInt8(truncatingIfNeeded: random.next())
          }
        default: break
        }
      }
    }

    /// Noise, or text that repeats.
    private static func fill(_ memory: inout [UInt8], _ page: Int, _ random: inout Generator) {
      let isNoise = random.next() % 2 == 0
      let word = random.next()
      for at in 0..<Page.bytes {
        memory[page * Page.bytes + at] = UInt8(
          truncatingIfNeeded: isNoise ? random.next() : word >> UInt64(at % 13))
      }
    }
  }

  struct Generator: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return state ^ state >> 29
    }
  }

  static func write(_ memories: Memories, isFull: Bool) throws -> (bytes: [UInt8], PageStreamWriter.Counters)
  {
    var bytes: [UInt8] = []
    let writer = PageStreamWriter { bytes += Array($0) }
    try memories.after.withUnsafeBytes { after in
      try memories.before.withUnsafeBytes { before in
        for page in 0..<pageCount {
          let at = page * Page.bytes
          try writer.add(page, after.baseAddress! + at, base: isFull ? nil : before.baseAddress! + at)
        }
      }
    }
    try writer.finish()
    return (bytes, writer.counters)
  }

  static func read(_ bytes: [UInt8], onto base: [UInt8]) throws -> [UInt8] {
    var memory = base
    var at = 0
    let reader = PageStreamReader(pageCount: pageCount, length: UInt64(bytes.count)) { buffer in
      guard at + buffer.count <= bytes.count else { throw CheckpointError.sizes("past its end") }
      buffer.copyBytes(from: bytes[at..<at + buffer.count])
      at += buffer.count
    }
    while let block = try reader.nextBlock() {
      for (index, number) in block.numbers.enumerated() {
        memory.withUnsafeMutableBytes { memory in
          let page = memory.baseAddress! + Int(number) * Page.bytes
          if block.isChange(index) { block.applyChange(index, to: page) }
          page.copyMemory(from: block.page(index), byteCount: Page.bytes)
        }
      }
    }
    for run in try reader.zeroRuns() {
      for byte in run.lowerBound * Page.bytes..<run.upperBound * Page.bytes { memory[byte] = 0 }
    }
    #expect(at == bytes.count)
    return memory
  }

  @Test(arguments: 1...20) func pagesComeBackAsTheyWere(seed: UInt64) throws {
    let memories = Memories(seed: seed)
    let (change, counters) = try Self.write(memories, isFull: false)
    let changed = try Self.read(change, onto: memories.before)
    #expect(changed == memories.after)
    #expect(counters.whole > 0 && counters.changes > 0 && counters.zeros > 0 && counters.unchanged > 0)
    let (full, _) = try Self.write(memories, isFull: true)
    let made = try Self.read(full, onto: [UInt8](repeating: 0, count: memories.before.count))
    #expect(made == memories.after)
    #expect(change.count < full.count)
  }

  @Test func aSmallChangeIsSmall() throws {
    var memories = Memories(seed: 99)
    memories.after = memories.before
    for page in 0..<8 { memories.after[page * 4096 + 100] ^= 0x55 }
    let (bytes, _) = try Self.write(memories, isFull: false)
    #expect(bytes.count < 400)
    let same = Memories(seed: 99)
    let (nothing, counters) = try Self.write(
      {
        var same = same; same.after = same.before; return same
      }(), isFull: false)
    #expect(nothing.count == 8 && counters.unchanged == Self.pageCount)
  }

  @Test func deviceStatesComeBackAsTheyWere() throws {
    var random = Generator(state: 5)
    let base = (0..<350_000).map { _ in UInt8(truncatingIfNeeded: random.next()) }
    var state = base
    for _ in 0..<40 { state[Int(random.next() % 350_000)] ^= 1 }
    state.insert(contentsOf: [1, 2, 3, 4, 5], at: 100_000)
    let delta = StateDelta.encode(state, on: base)
    #expect(delta.count < 4000)
    let back = try StateDelta.decode(delta, on: base)
    #expect(back == state)
    let whole = StateDelta.encode(state, on: nil)
    #expect(try StateDelta.decode(whole, on: nil) == state)
    var other = base
    other[7] ^= 1
    #expect(throws: CheckpointError.self) { _ = try StateDelta.decode(delta, on: other) }
    #expect(throws: CheckpointError.self) { _ = try StateDelta.decode(delta, on: nil) }
    let empty = try StateDelta.decode(StateDelta.encode([], on: base), on: base)
    #expect(empty.isEmpty)
  }

  // MARK: Whole files

  /// A checkpoint in a file of its own, which is removed afterwards.
  static func withFile(_ body: (String) throws -> Void) throws {
    let path = NSTemporaryDirectory() + "checkpoint-\(UInt64.random(in: 0 ... .max))"
    defer { try? FileManager.default.removeItem(atPath: path) }
    let memories = Memories(seed: 3)
    let state = [UInt8](repeating: 7, count: 5000)
    let made = try CheckpointFile.create(
      path, metadata: Array("{\"name\":\"dev\"}".utf8), deviceState: StateDelta.encode(state, on: nil))
    let disk = DisksWriter(try PartWriter(appendingTo: path))
    try disk.add(diskBytes: 8192) { try $0.replace(1, with: state) }
    let disks = try disk.finish()
    let part = try PartWriter(appendingTo: path)
    let (bytes, _) = try write(memories, isFull: false)
    try bytes.withUnsafeBytes { try part.write($0) }
    let pages = try part.finish()
    try made.file.seal(
      CheckpointHeader(
        replica: Array(0..<16), sequence: 7, base: 6, baseDigest: Array(repeating: 9, count: 32),
        ramBytes: UInt64(pageCount * Page.bytes), metadata: made.metadata, deviceState: made.deviceState,
        disks: disks, pages: pages))
    try body(path)
  }

  @Test func aFileComesBackAsItWas() throws {
    try Self.withFile { path in
      let file = try CheckpointFile.open(path)
      let header = try file.verify()
      #expect(header.sequence == 7 && header.base == 6 && !header.isFull && header.replica == Array(0..<16))
      #expect(header.digest == Array(try Data(contentsOf: URL(fileURLWithPath: path))[288..<320]))
      #expect(try file.contents(of: header.metadata) == Array("{\"name\":\"dev\"}".utf8))
      let state = try StateDelta.decode(try file.contents(of: header.deviceState), on: nil)
      #expect(state == [UInt8](repeating: 7, count: 5000))
    }
  }

  @Test(arguments: 1...60) func aDamagedFileIsRefused(seed: UInt64) throws {
    try Self.withFile { path in
      var bytes = Array(try Data(contentsOf: URL(fileURLWithPath: path)))
      var random = Generator(state: seed)
      switch seed % 4 {
      case 0: bytes.removeLast(Int(1 + random.next() % UInt64(bytes.count - 1)))
      case 1: bytes.append(UInt8(truncatingIfNeeded: random.next()))
      case 2: bytes[Int(random.next() % 320)] ^= 1 << UInt8(random.next() % 8)
      default: bytes[Int(random.next() % UInt64(bytes.count))] ^= 1 << UInt8(random.next() % 8)
      }
      try Data(bytes).write(to: URL(fileURLWithPath: path))
      #expect(throws: CheckpointError.self) { _ = try CheckpointFile.open(path).verify() }
    }
  }

  /// Behind the digests, against a home that lies: no page out of the RAM, no trap, no endless memory.
  @Test func pagesOfAnyBytesStayWithinTheRAM() throws {
    let (good, _) = try Self.write(Memories(seed: 8), isFull: false)
    var random = Generator(state: 77)
    for _ in 0..<3000 {
      var bytes = good
      for _ in 0..<Int(1 + random.next() % 4) {
        bytes[Int(random.next() % UInt64(min(bytes.count, 4000)))] = UInt8(truncatingIfNeeded: random.next())
      }
      if random.next() % 4 == 0 { bytes.removeLast(Int(random.next() % UInt64(bytes.count))) }
      _ = try? Self.walk(bytes)
    }
  }

  private static func walk(_ bytes: [UInt8]) throws {
    var at = 0
    let reader = PageStreamReader(pageCount: pageCount, length: UInt64(bytes.count)) { buffer in
      guard at + buffer.count <= bytes.count else { throw CheckpointError.sizes("past its end") }
      buffer.copyBytes(from: bytes[at..<at + buffer.count])
      at += buffer.count
    }
    var last = -1
    while let block = try reader.nextBlock() {
      for number in block.numbers {
        #expect(Int(number) > last && Int(number) < pageCount)
        last = Int(number)
      }
    }
    for run in try reader.zeroRuns() { #expect(run.upperBound <= pageCount && !run.isEmpty) }
  }
}
