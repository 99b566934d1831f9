/// SipHash-2-4 with 128 bits of result, over whole 64-bit words, in pieces (Aumasson and Bernstein 2012; the reference
/// implementation's `outlen` 16).
///
/// What bears the right seal was made by someone who knew the key: it is not cut short, and nothing in it was changed.
package struct Seal: Sendable {
  private var v0: UInt64
  private var v1: UInt64
  private var v2: UInt64
  private var v3: UInt64
  private var count: UInt64 = 0

  package init(key: (UInt64, UInt64)) {
    v0 = key.0 ^ 0x736f_6d65_7073_6575
    v1 = key.1 ^ 0x646f_7261_6e64_6f6d ^ 0xee
    v2 = key.0 ^ 0x6c79_6765_6e65_7261
    v3 = key.1 ^ 0x7465_6462_7974_6573
  }

  @inline(__always)
  private mutating func round() {
    v0 &+= v1
    v1 = (v1 &<< 13 | v1 &>> 51) ^ v0
    v0 = v0 &<< 32 | v0 &>> 32
    v2 &+= v3
    v3 = (v3 &<< 16 | v3 &>> 48) ^ v2
    v0 &+= v3
    v3 = (v3 &<< 21 | v3 &>> 43) ^ v0
    v2 &+= v1
    v1 = (v1 &<< 17 | v1 &>> 47) ^ v2
    v2 = v2 &<< 32 | v2 &>> 32
  }

  @inline(__always)
  private mutating func take(_ word: UInt64) {
    v3 ^= word
    round()
    round()
    v0 ^= word
  }

  /// `bytes.count` is a multiple of 8.
  package mutating func update(_ bytes: UnsafeRawBufferPointer) {
    var offset = 0
    while offset < bytes.count {
      take(bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
      offset &+= 8
    }
    count &+= UInt64(bytes.count)
  }

  package func value() -> (UInt64, UInt64) {
    var copy = self
    copy.take(count &<< 56)
    copy.v2 ^= 0xee
    for _ in 0..<4 { copy.round() }
    let first = copy.v0 ^ copy.v1 ^ copy.v2 ^ copy.v3
    copy.v1 ^= 0xdd
    for _ in 0..<4 { copy.round() }
    return (first, copy.v0 ^ copy.v1 ^ copy.v2 ^ copy.v3)
  }
}
