/// The result of a block on its way home. All numbers are little endian.
///
/// ```
/// header   magic "SFORESUL" · version u32 · flags u32 (1: words before) · call u64 · entry u64
/// section  type u32 · 0 u32 · length u64 (a multiple of 8)   then length bytes
///   1 state    BlockState
///   2 pages    PageRecords; any number of sections
///   3 seal     16 bytes: of everything before them. The last one.
/// ```
package enum ResultStream {
  static let magic: UInt64 = 0x4c55_5345_524f_4653
  static let version: UInt32 = 1
  static let headerBytes = 32
  static let sectionBytes = 16
  /// Longer than what the writer makes, shorter than what could hurt.
  static let sectionLimit: UInt64 = 64 << 20
  package static let pieceBytes = 1 << 20

  package enum SectionType: UInt32 {
    case state = 1
    case pages = 2
    case seal = 3
  }

  /// Makes the stream in pieces; `output` takes each.
  package struct Writer {
    private var seal: Seal
    private let output: ([UInt8]) -> Void
    package private(set) var count = 0

    package init(
      call: UInt64, entry: UInt64, withBefore: Bool, key: (UInt64, UInt64),
      output: @escaping ([UInt8]) -> Void
    ) {
      seal = Seal(key: key)
      self.output = output
      var writer = FieldWriter()
      for word in [magic, UInt64(version) | (withBefore ? 1 << 32 : 0), call, entry] { writer.word(word) }
      put(writer.output)
    }

    private mutating func put(_ bytes: [UInt8]) {
      bytes.withUnsafeBytes { seal.update($0) }
      count += bytes.count
      output(bytes)
    }

    package mutating func section(_ type: SectionType, _ body: [UInt8]) {
      var writer = FieldWriter()
      writer.word(UInt64(type.rawValue))
      writer.word(UInt64(body.count))
      put(writer.output)
      if !body.isEmpty { put(body) }
    }

    package mutating func finish() {
      var writer = FieldWriter()
      writer.word(UInt64(SectionType.seal.rawValue))
      writer.word(16)
      put(writer.output)
      var last = FieldWriter()
      let value = seal.value()
      last.word(value.0)
      last.word(value.1)
      count += 16
      output(last.output)
    }
  }

  /// Finds the stream's end while it arrives.
  package struct Progress {
    private var next = headerBytes
    package private(set) var total: Int?

    package init() {}

    /// `bytes`: all that has arrived. Throws when it can not become a result any more.
    package mutating func look(_ bytes: UnsafeRawBufferPointer) throws(ResultError) {
      while total == nil, bytes.count >= next + sectionBytes {
        let type = bytes.loadUnaligned(fromByteOffset: next, as: UInt64.self)
        let length = bytes.loadUnaligned(fromByteOffset: next + 8, as: UInt64.self)
        guard length <= sectionLimit, length % 8 == 0 else { throw ResultError("a section's length") }
        next += sectionBytes + Int(length)
        if type == UInt64(SectionType.seal.rawValue) { total = next }
      }
    }
  }
}

/// A result that is whole, bears the right seal and has the right form. Its bytes are the caller's to keep.
package struct BlockResult {
  package let state: BlockState
  package let withBefore: Bool
  /// Parts of the bytes that hold PageRecords.
  package let pages: [UnsafeRawBufferPointer]

  package init(
    _ bytes: UnsafeRawBufferPointer, call: UInt64, entry: UInt64, withBefore: Bool, key: (UInt64, UInt64)
  ) throws(ResultError) {
    guard bytes.count >= ResultStream.headerBytes + ResultStream.sectionBytes + 16, bytes.count % 8 == 0
    else {
      throw ResultError("it is cut short")
    }
    var seal = Seal(key: key)
    seal.update(UnsafeRawBufferPointer(rebasing: bytes[..<(bytes.count - 16)]))
    let value = seal.value()
    func word(_ at: Int) -> UInt64 { bytes.loadUnaligned(fromByteOffset: at, as: UInt64.self) }
    guard word(bytes.count - 16) == value.0, word(bytes.count - 8) == value.1 else {
      throw ResultError("its seal")
    }
    guard word(0) == ResultStream.magic,
      word(8) == UInt64(ResultStream.version) | (withBefore ? 1 << 32 : 0), word(16) == call,
      word(24) == entry
    else { throw ResultError("it is another's") }
    var state: BlockState?
    var pages: [UnsafeRawBufferPointer] = []
    var at = ResultStream.headerBytes
    while at < bytes.count - 16 {
      guard bytes.count - at >= ResultStream.sectionBytes else { throw ResultError("a section") }
      let (type, length) = (word(at), word(at + 8))
      at += ResultStream.sectionBytes
      guard length <= UInt64(bytes.count - at), length % 8 == 0,
        let kind = ResultStream.SectionType(rawValue: UInt32(truncatingIfNeeded: type)), type >> 32 == 0
      else { throw ResultError("a section's length") }
      let body = UnsafeRawBufferPointer(rebasing: bytes[at..<at + Int(length)])
      at += Int(length)
      switch kind {
      case .state where state == nil: state = try BlockState(decoding: body)
      case .pages: pages.append(body)
      case .seal where at == bytes.count && length == 16: break
      default: throw ResultError("a section")
      }
    }
    guard let state, at == bytes.count else { throw ResultError("its state is missing") }
    self.state = state
    self.withBefore = withBefore
    self.pages = pages
    try checkPages()
  }

  /// Every record has its form, and is about memory that the block's mappings have.
  private func checkPages() throws(ResultError) {
    var mapping = 0
    for body in pages {
      var at = 0
      while at < body.count {
        guard let (record, next) = PageRecords.next(body, at: at, withBefore: withBefore) else {
          throw ResultError("a page")
        }
        at = next
        let range =
          switch record {
          case .whole(let address, let count, _), .dropped(let address, let count):
            address..<address + UInt64(count * PageRecords.pageSize)
          case .words(let address, _, _): address..<address + UInt64(PageRecords.pageSize)
          }
        if !covers(range, from: &mapping) { throw ResultError("a page outside its memory") }
      }
    }
  }

  /// Pages come in the order of their addresses, so that looking on from the last one is enough.
  private func covers(_ range: Range<UInt64>, from index: inout Int) -> Bool {
    var at = range.lowerBound
    if index < state.mappings.count, state.mappings[index].start > at { index = 0 }
    while at < range.upperBound {
      while index < state.mappings.count, state.mappings[index].end <= at { index += 1 }
      guard index < state.mappings.count, state.mappings[index].start <= at, !state.mappings[index].isShared
      else { return false }
      at = state.mappings[index].end
    }
    return true
  }
}
