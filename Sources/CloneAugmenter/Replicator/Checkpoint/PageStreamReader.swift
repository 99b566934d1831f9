import CZstd
import GuestMemory

/// Reads what `PageStreamWriter` wrote. Whatever the bytes are, it names pages of the RAM only, each once and in order.
public final class PageStreamReader {
  /// Pages of one block. `bytes` holds them one behind the other until the next call.
  public struct Block {
    public var numbers: [UInt32]
    public var changes: UInt64
    public var bytes: UnsafeMutableRawPointer

    public func isChange(_ index: Int) -> Bool { changes >> UInt64(index) & 1 != 0 }
    public func page(_ index: Int) -> UnsafeMutableRawPointer { bytes + index * Page.bytes }

    /// Calls `body` with each run of pages that follow one another, and where the first of them is.
    public func forEachRun(_ body: (PageRange, UnsafeRawPointer) throws -> Void) rethrows {
      var index = 0
      while index < numbers.count {
        var end = index + 1
        while end < numbers.count, numbers[end] == numbers[end - 1] + 1 { end += 1 }
        let first = Int(numbers[index])
        try body(first..<first + end - index, page(index))
        index = end
      }
    }

    /// Makes a change the page itself: `base` is what it was.
    public func applyChange(_ index: Int, to base: UnsafeRawPointer) {
      _ = PageStreamWriter.exclusiveOr(page(index), base, into: page(index))
    }
  }

  private let context: OpaquePointer
  private let block: UnsafeMutableRawPointer
  private let packed: UnsafeMutableRawPointer
  private let pageCount: Int
  private let read: (UnsafeMutableRawBufferPointer) throws -> Void
  private var left: UInt64
  private var next: UInt32 = 0
  private static let blockBytes = PageStreamWriter.blockPages * Page.bytes

  /// `length`: of the part. `read` fills a buffer with what follows, or throws.
  public init(
    pageCount: Int, length: UInt64, read: @escaping (UnsafeMutableRawBufferPointer) throws -> Void
  ) {
    guard let context = ZSTD_createDCtx() else { preconditionFailure("no memory to expand with") }
    self.context = context
    self.pageCount = pageCount
    self.read = read
    left = length
    block = .allocate(byteCount: Self.blockBytes, alignment: 64)
    packed = .allocate(byteCount: Self.blockBytes, alignment: 64)
  }

  deinit {
    ZSTD_freeDCtx(context)
    block.deallocate()
    packed.deallocate()
  }

  /// The next block; nil behind the last one.
  public func nextBlock() throws -> Block? {
    let count = Int(try number(UInt32.self))
    guard count > 0 else { return nil }
    guard count <= PageStreamWriter.blockPages else {
      throw CheckpointError.sizes("a block of \(count) pages")
    }
    let length = Int(try number(UInt32.self))
    let changes = try number(UInt64.self)
    guard length <= count * Page.bytes, count == 64 || changes >> UInt64(count) == 0 else {
      throw CheckpointError.sizes("a block of \(length) bytes for \(count) pages")
    }
    var numbers: [UInt32] = []
    numbers.reserveCapacity(count)
    for _ in 0..<count {
      let page = try number(UInt32.self)
      guard page >= next, Int(page) < pageCount else {
        throw CheckpointError.sizes("page \(page) is out of place")
      }
      next = page + 1
      numbers.append(page)
    }
    let isPacked = length < count * Page.bytes
    try fill(isPacked ? packed : block, length)
    if isPacked {
      guard ZSTD_decompressDCtx(context, block, count * Page.bytes, packed, length) == count * Page.bytes
      else {
        throw CheckpointError.sizes("a block does not expand")
      }
    }
    return Block(numbers: numbers, changes: changes, bytes: block)
  }

  /// Behind the last block: the pages that are zeros from now on.
  public func zeroRuns() throws -> [PageRange] {
    let count = Int(try number(UInt32.self))
    guard UInt64(count) * 8 == left else { throw CheckpointError.sizes("\(count) runs of zeros at its end") }
    var runs: [PageRange] = []
    runs.reserveCapacity(count)
    for _ in 0..<count {
      let first = Int(try number(UInt32.self))
      let length = Int(try number(UInt32.self))
      guard length > 0, first >= runs.last?.upperBound ?? 0, first + length <= pageCount else {
        throw CheckpointError.sizes("a run of zeros is out of place")
      }
      runs.append(first..<first + length)
    }
    return runs
  }

  private func number<T: FixedWidthInteger>(_ type: T.Type) throws -> T {
    var value = T.zero
    try withUnsafeMutableBytes(of: &value) { try take($0) }
    return T(littleEndian: value)
  }

  private func fill(_ target: UnsafeMutableRawPointer, _ count: Int) throws {
    try take(UnsafeMutableRawBufferPointer(start: target, count: count))
  }

  private func take(_ buffer: UnsafeMutableRawBufferPointer) throws {
    guard UInt64(buffer.count) <= left else { throw CheckpointError.sizes("its pages end early") }
    left -= UInt64(buffer.count)
    try read(buffer)
  }
}
