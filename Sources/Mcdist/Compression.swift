import CLZ4
import GuestMemory

/// How a page travels.
package enum PageEncoding: UInt8, Sendable {
  case raw = 0
  case lz4 = 1
}

/// LZ4 of single pages. A page that it does not make an eighth smaller travels as it is.
package struct PageCompressor: ~Copyable {
  /// LZ4 output of at most this size is used.
  package static let compressedMax = Page.bytes * 7 / 8
  private let state: UnsafeMutableRawPointer

  package init() { state = .allocate(byteCount: Int(LZ4_sizeofState()), alignment: 16) }
  deinit { state.deallocate() }

  /// Bytes written to `target` (`compressedMax` long); nil: not worth it.
  package func compress(_ page: UnsafeRawPointer, into target: UnsafeMutableRawPointer) -> Int? {
    let count = LZ4_compress_fast_extState(
      state, page.assumingMemoryBound(to: CChar.self), target.assumingMemoryBound(to: CChar.self),
      CInt(Page.bytes), CInt(Self.compressedMax), 1)
    return count > 0 ? Int(count) : nil
  }

  package static func isZero(_ page: UnsafeRawPointer) -> Bool {
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

  /// False: `bytes` are not the LZ4 of a page; `page` is then undefined.
  package static func expand(_ bytes: UnsafeRawBufferPointer, into page: UnsafeMutableRawPointer) -> Bool {
    guard let start = bytes.baseAddress else { return false }
    return LZ4_decompress_safe(
      start.assumingMemoryBound(to: CChar.self), page.assumingMemoryBound(to: CChar.self), CInt(bytes.count),
      CInt(Page.bytes)) == CInt(Page.bytes)
  }
}
