import Augmenter
import Testing

@Suite("A block's result on its way home")
struct ResultTests {
  private static let key: (UInt64, UInt64) = (0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908)

  @Test("The seal is SipHash-2-4-128: the reference implementation's vectors for 0 and 8 bytes")
  func seal() {
    var seal = Seal(key: Self.key)
    #expect(seal.value() == (0xe6a8_25ba_047f_81a3, 0x9302_55c7_1472_f66d))
    withUnsafeBytes(of: UInt64(0x0706_0504_0302_0100)) { seal.update($0) }
    #expect(seal.value() == (0x61f5_5862_baa9_623b, 0xb497_14f3_64e2_830f))
  }

  private static var state: BlockState {
    var state = BlockState()
    state.end = .systemCall
    state.registers = (0..<216).map { UInt8($0) }
    state.xstate = [UInt8](repeating: 7, count: 513)
    state.mask = 0xff00
    state.asksMore = true
    (state.breakBefore, state.breakAfter) = (0x5000, 0x9000)
    state.mappings = [
      Mapping(start: 0x10000, end: 0x20000, protection: 3),
      Mapping(
        start: 0x30000, end: 0x31000, protection: 1, kind: .file, offset: 4096, device: 5, inode: 6,
        path: "/lib/x"),
    ]
    state.handlers = [.init(signal: 10, action: [UInt8](repeating: 1, count: 32))]
    state.files = [
      .moved(descriptor: 3, offset: 77), .closed(descriptor: 4),
      .opened(descriptor: 5, flags: 0o100000, offset: 9, path: "/etc/x"),
    ]
    return state
  }

  private static func stream(withBefore: Bool = false) -> [UInt8] {
    var bytes: [UInt8] = []
    var writer = ResultStream.Writer(call: 4, entry: 0x1234, withBefore: withBefore, key: key) { bytes += $0 }
    var records = PageRecordWriter(withBefore: withBefore)
    let pages = pair()
    _ = records.append(address: 0x10000, before: pages.before, now: pages.now)
    if !withBefore {
      records.appendWhole(address: 0x11000, pages.now)
      records.appendWhole(address: 0x12000, pages.now)
      records.appendDropped(address: 0x14000, count: 3)
    }
    writer.section(.pages, records.take())
    writer.section(.state, state.encoded())
    writer.finish()
    pages.before.deallocate()
    pages.now.deallocate()
    return bytes
  }

  private static func pair() -> (before: UnsafeMutableRawPointer, now: UnsafeMutableRawPointer) {
    let before = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 8)
    let now = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 8)
    before.initializeMemory(as: UInt64.self, repeating: 1, count: 512)
    now.initializeMemory(as: UInt64.self, repeating: 1, count: 512)
    for word in [0, 5, 6, 511] {
      now.storeBytes(of: UInt64(100 + word), toByteOffset: word * 8, as: UInt64.self)
    }
    return (before, now)
  }

  private func decode(_ bytes: [UInt8], withBefore: Bool = false) throws -> BlockState {
    try bytes.withUnsafeBytes {
      try BlockResult($0, call: 4, entry: 0x1234, withBefore: withBefore, key: Self.key).state
    }
  }

  @Test("What was written is read again, and the end is found while it arrives", arguments: [false, true])
  func roundTrip(withBefore: Bool) throws {
    let bytes = Self.stream(withBefore: withBefore)
    #expect(try decode(bytes, withBefore: withBefore) == Self.state)
    var progress = ResultStream.Progress()
    for count in stride(from: 0, to: bytes.count, by: 40) {
      try bytes.withUnsafeBytes { try progress.look(UnsafeRawBufferPointer(rebasing: $0[..<count])) }
    }
    try bytes.withUnsafeBytes { try progress.look($0) }
    #expect(progress.total == bytes.count)
  }

  @Test("Pages as words, whole and dropped")
  func records() throws {
    let bytes = Self.stream()
    let kinds = try bytes.withUnsafeBytes { all in
      let result = try BlockResult(all, call: 4, entry: 0x1234, withBefore: false, key: Self.key)
      var kinds: [PageRecords.Record] = []
      var at = 0
      while at < result.pages[0].count {
        let (record, next) = try #require(PageRecords.next(result.pages[0], at: at, withBefore: false))
        kinds.append(record)
        at = next
      }
      return kinds
    }
    #expect(
      kinds == [
        .words(address: 0x10000, runs: 3, offset: 16), .whole(address: 0x11000, count: 2, offset: 88),
        .dropped(address: 0x14000, count: 3),
      ])
  }

  @Test("A stream that is cut or changed anywhere is refused")
  func damage() {
    let bytes = Self.stream()
    for index in stride(from: 0, to: bytes.count, by: 7) {
      var altered = bytes
      altered[index] ^= 0x20
      #expect(throws: ResultError.self) { try decode(altered) }
      #expect(throws: ResultError.self) { try decode(Array(bytes[..<index])) }
    }
    #expect(throws: ResultError.self) { try decode(bytes + [UInt8](repeating: 0, count: 8)) }
    #expect(throws: ResultError.self) { try decode(bytes, withBefore: true) }
    #expect(throws: ResultError.self) {
      try bytes.withUnsafeBytes {
        _ = try BlockResult($0, call: 5, entry: 0x1234, withBefore: false, key: Self.key)
      }
    }
  }

  @Test("A clone that lies under the right seal: no crash, and nothing outside of what it says is mapped")
  func lies() throws {
    let body = Self.state.encoded()
    for seed in 1...2000 as ClosedRange<UInt64> {
      var numbers = Numbers(seed: seed)
      var altered = body
      let place = Int(numbers.next(UInt64(body.count / 8))) * 8
      let values: [UInt64] = [.max, 1 << 40, 1 << 20, 0, 0xffff, numbers.next(1 << 50)]
      withUnsafeBytes(of: values[Int(numbers.next(6))]) {
        altered.replaceSubrange(place..<place + 8, with: $0)
      }
      var bytes: [UInt8] = []
      var writer = ResultStream.Writer(call: 4, entry: 0x1234, withBefore: false, key: Self.key) {
        bytes += $0
      }
      var records = PageRecordWriter(withBefore: false)
      records.appendDropped(address: numbers.next(4) << 16, count: Int(numbers.next(20)) + 1)
      writer.section(.pages, records.take())
      writer.section(.state, altered)
      writer.finish()
      guard let state = try? decode(bytes) else { continue }
      #expect(!state.mappings.isEmpty)
    }
    var outside: [UInt8] = []
    var writer = ResultStream.Writer(call: 4, entry: 0x1234, withBefore: false, key: Self.key) {
      outside += $0
    }
    var records = PageRecordWriter(withBefore: false)
    records.appendDropped(address: 0x1f000, count: 2)
    writer.section(.pages, records.take())
    writer.section(.state, body)
    writer.finish()
    #expect(throws: ResultError.self) { try decode(outside) }
  }
}
