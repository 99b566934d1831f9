/// Changed pages as they go home. Every record begins with a word: the page's address, and in its low bits what follows.
///
/// ```
/// whole:   address|1, count           then count pages of 4,096 bytes
/// dropped: address|2, count           count pages whose memory was given back; nothing follows
/// words:   address|3, runs            then runs × (first|count<<16, count words now [, count words before])
/// ```
package enum PageRecords {
  package static let pageSize = 4096
  static let wordsPerPage = 512

  package enum Record: Equatable {
    case whole(address: UInt64, count: Int, offset: Int)
    case dropped(address: UInt64, count: Int)
    /// `offset`: of the first run.
    case words(address: UInt64, runs: Int, offset: Int)
  }

  package struct Run: Equatable {
    package var first: Int
    package var count: Int
    /// Of the words as they are now, and of those before (the same, if the records hold none).
    package var offset: Int
    package var offsetBefore: Int
  }

  /// The record at `offset`, and where the next one begins. Nil: it is not as it should be.
  package static func next(
    _ bytes: UnsafeRawBufferPointer, at offset: Int, withBefore: Bool
  ) -> (Record, next: Int)? {
    guard offset >= 0, bytes.count - offset >= 16 else { return nil }
    let head = bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
    let number = bytes.loadUnaligned(fromByteOffset: offset + 8, as: UInt64.self)
    let address = head & ~4095
    guard number > 0, number <= 1 << 36, address < 1 << 47,
      number << 12 <= 1 << 47 - address || head & 4095 == 3
    else { return nil }
    switch head & 4095 {
    case 1:
      guard (bytes.count - offset - 16) / pageSize >= Int(number) else { return nil }
      return (
        .whole(address: address, count: Int(number), offset: offset + 16),
        offset + 16 + Int(number) * pageSize
      )
    case 2:
      return (.dropped(address: address, count: Int(number)), offset + 16)
    case 3:
      guard number <= 512 else { return nil }
      var at = offset + 16
      var end = 0
      for _ in 0..<number {
        guard let (run, next) = run(bytes, at: at, withBefore: withBefore), run.first >= end else {
          return nil
        }
        end = run.first + run.count
        at = next
      }
      return (.words(address: address, runs: Int(number), offset: offset + 16), at)
    default: return nil
    }
  }

  package static func run(
    _ bytes: UnsafeRawBufferPointer, at offset: Int, withBefore: Bool
  ) -> (Run, next: Int)? {
    guard bytes.count - offset >= 8 else { return nil }
    let head = bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
    let (first, count) = (Int(head & 0xffff), Int(head >> 16 & 0xffff))
    let size = count * 8
    guard head >> 32 == 0, count > 0, first + count <= wordsPerPage,
      bytes.count - offset - 8 >= (withBefore ? 2 : 1) * size
    else { return nil }
    let now = offset + 8
    return withBefore
      ? (Run(first: first, count: count, offset: now, offsetBefore: now + size), now + 2 * size)
      : (Run(first: first, count: count, offset: now, offsetBefore: now), now + size)
  }
}
