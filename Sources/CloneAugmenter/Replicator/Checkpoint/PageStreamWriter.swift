import CZstd
import Glibc
import GuestMemory

/// What a checkpoint says of pages, in ascending order.
///
/// Blocks of up to 64 pages, then an empty block, then runs of pages that are zeros from now on:
///
///     | pages n 4 | length 4 | which are changes 8 | n page numbers, 4 each | n × 4096 bytes, by Zstandard or as they are |
///     | 0 4 | runs r 4 | r × (first 4, count 4) |
///
/// A change is the page XOR the same page as it was; a page goes so where that is smaller, else whole. `length` is that of
/// the bytes as they stand there: n × 4096 of them are not compressed. What is not named is as it was.
public final class PageStreamWriter {
  public static let blockPages = 64
  private static let level: CInt = 1
  /// So few bytes that differ are always smaller than a page.
  private static let sparseBytes = 384

  public struct Counters: Sendable, Equatable {
    public var whole = 0
    public var changes = 0
    public var zeros = 0
    public var unchanged = 0
  }
  public private(set) var counters = Counters()

  private let context: OpaquePointer
  /// The pages of the block under way.
  private let block: UnsafeMutableRawPointer
  private let scratch: UnsafeMutableRawPointer
  private let scratchBytes: Int
  private var numbers: [UInt32] = []
  private var changes: UInt64 = 0
  private var zeroRuns: [(first: UInt32, count: UInt32)] = []
  private var out: [UInt8] = []
  private let sink: (UnsafeRawBufferPointer) throws -> Void

  /// `sink` gets the bytes in their order.
  public init(sink: @escaping (UnsafeRawBufferPointer) throws -> Void) {
    guard let context = ZSTD_createCCtx() else { preconditionFailure("no memory to compress with") }
    self.context = context
    self.sink = sink
    block = .allocate(byteCount: Self.blockPages * Page.bytes, alignment: 64)
    scratchBytes = ZSTD_compressBound(Self.blockPages * Page.bytes)
    scratch = .allocate(byteCount: scratchBytes, alignment: 64)
    numbers.reserveCapacity(Self.blockPages)
  }

  deinit {
    ZSTD_freeCCtx(context)
    block.deallocate()
    scratch.deallocate()
  }

  /// The page is `bytes`; it was `base`, or zeros if that is nil. Pages come in ascending order.
  public func add(_ page: PageIndex, _ bytes: UnsafeRawPointer, base: UnsafeRawPointer?) throws {
    if Self.isZero(bytes) {
      if let base, !Self.isZero(base) { addZeros(page..<page + 1) } else { counters.unchanged += 1 }
      return
    }
    let place = block + numbers.count * Page.bytes
    if let base, !Self.isZero(base) {
      let differing = Self.exclusiveOr(bytes, base, into: place)
      if differing == 0 {
        counters.unchanged += 1
        return
      }
      if differing <= Self.sparseBytes || compressedBytes(place) <= compressedBytes(bytes) {
        changes |= 1 << UInt64(numbers.count)
        counters.changes += 1
      } else {
        memcpy(place, bytes, Page.bytes)
        counters.whole += 1
      }
    } else {
      memcpy(place, bytes, Page.bytes)
      counters.whole += 1
    }
    numbers.append(UInt32(page))
    if numbers.count == Self.blockPages { try flush() }
  }

  /// The page is `bytes` from now on, whatever it was. In the same order as `add`.
  public func replace(_ page: PageIndex, with bytes: UnsafeRawPointer) throws {
    if Self.isZero(bytes) { return addZeros(page..<page + 1) }
    memcpy(block + numbers.count * Page.bytes, bytes, Page.bytes)
    counters.whole += 1
    numbers.append(UInt32(page))
    if numbers.count == Self.blockPages { try flush() }
  }

  /// These are zeros from now on, whatever they were.
  public func addZeros(_ range: PageRange) {
    counters.zeros += range.count
    if let last = zeroRuns.last, Int(last.first) + Int(last.count) == range.lowerBound {
      zeroRuns[zeroRuns.count - 1].count += UInt32(range.count)
    } else {
      zeroRuns.append((UInt32(range.lowerBound), UInt32(range.count)))
    }
  }

  /// To be called once, at the end.
  public func finish() throws {
    try flush()
    out.removeAll(keepingCapacity: true)
    out.append(little: UInt32(0))
    out.append(little: UInt32(zeroRuns.count))
    for run in zeroRuns {
      out.append(little: run.first)
      out.append(little: run.count)
    }
    try out.withUnsafeBytes { try sink($0) }
  }

  private func flush() throws {
    guard !numbers.isEmpty else { return }
    let length = numbers.count * Page.bytes
    let count = ZSTD_compressCCtx(context, scratch, scratchBytes, block, length, Self.level)
    let isSmaller = ZSTD_isError(count) == 0 && count < length
    out.removeAll(keepingCapacity: true)
    out.append(little: UInt32(numbers.count))
    out.append(little: UInt32(isSmaller ? count : length))
    out.append(little: changes)
    for number in numbers { out.append(little: number) }
    try out.withUnsafeBytes { try sink($0) }
    try sink(UnsafeRawBufferPointer(start: isSmaller ? scratch : block, count: isSmaller ? count : length))
    numbers.removeAll(keepingCapacity: true)
    changes = 0
  }

  private func compressedBytes(_ page: UnsafeRawPointer) -> Int {
    ZSTD_compressCCtx(context, scratch, scratchBytes, page, Page.bytes, Self.level)
  }

  static func isZero(_ page: UnsafeRawPointer) -> Bool {
    var offset = 0
    while offset < Page.bytes {
      var sum = SIMD8<UInt64>.zero
      for step in 0..<4 {
        sum |= page.loadUnaligned(fromByteOffset: offset + step * 64, as: SIMD8<UInt64>.self)
      }
      if sum != .zero { return false }
      offset += 256
    }
    return true
  }

  /// How many bytes differ.
  static func exclusiveOr(
    _ page: UnsafeRawPointer, _ base: UnsafeRawPointer, into target: UnsafeMutableRawPointer
  ) -> Int {
    var differing = 0
    for offset in stride(from: 0, to: Page.bytes, by: 8) {
      let word =
        page.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
        ^ base.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
      target.storeBytes(of: word, toByteOffset: offset, as: UInt64.self)
      if word != 0 {
        // One bit for each byte that is not zero.
        let folded = (word | word >> 4) & 0x0f0f_0f0f_0f0f_0f0f
        let twice = (folded | folded >> 2) & 0x0303_0303_0303_0303
        differing += ((twice | twice >> 1) & 0x0101_0101_0101_0101).nonzeroBitCount
      }
    }
    return differing
  }
}
