import Crypto
import Descriptor

/// A small descriptor with a value in every field.
func sampleDescriptor() -> VMDescriptor {
  VMDescriptor(
    snapshot: "s1", parent: "dev", image: "mini", createdMicroseconds: 0x0102_0304_0506_0708,
    ramBytes: 256 * VMDescriptor.pageBytes, vcpus: 2, compatibility: "qemu 7.2.22 pc qemu64 tcg",
    kernelCommandLine: "console=ttyS0",
    disks: [
      .init(
        virtualBytes: 4096,
        layers: [
          .init(id: "a1", format: "qcow2", host: "h1"), .init(id: "b2", format: "raw", host: "h2"),
        ])
    ],
    deviceState: [0xDE, 0xAD, 0xBE, 0xEF],
    existingPages: [.init(first: 0, count: 3), .init(first: 130, count: 126)],
    network: .init(mac: "52:54:00:12:34:56", ip: ""))
}

/// Makes the checksum right again, so that a test reaches the checks behind it.
func resealed(_ bytes: [UInt8]) -> [UInt8] {
  var hash = SHA256()
  bytes.withUnsafeBytes {
    hash.update(bufferPointer: UnsafeRawBufferPointer(rebasing: $0[..<32]))
    hash.update(bufferPointer: UnsafeRawBufferPointer(rebasing: $0[64...]))
  }
  return Array(bytes[..<32]) + Array(hash.finalize()) + Array(bytes[64...])
}

/// Replaces the bytes at `offset` by `value`, little-endian.
func patched<T: FixedWidthInteger>(_ bytes: [UInt8], at offset: Int, _ value: T) -> [UInt8] {
  var result = bytes
  withUnsafeBytes(of: value.littleEndian) {
    result.replaceSubrange(offset..<(offset + $0.count), with: $0)
  }
  return result
}

/// Rewrites a section's body in place (same length) and makes its digest and the checksum right again.
func withSection(_ bytes: [UInt8], entry: Int, _ change: (inout [UInt8]) -> Void) -> [UInt8] {
  let entryOffset = 64 + entry * 64
  func word(_ at: Int) -> Int {
    (0..<8).reduce(0) { $0 | Int(bytes[entryOffset + at + $1]) << ($1 * 8) }
  }
  let range = word(8)..<(word(8) + word(16))
  var body = Array(bytes[range])
  change(&body)
  precondition(body.count == range.count)
  var result = bytes
  result.replaceSubrange(range, with: body)
  result.replaceSubrange((entryOffset + 24)..<(entryOffset + 56), with: Array(SHA256.hash(data: body)))
  return resealed(result)
}

/// SplitMix64: the same sequence everywhere for a printed seed.
struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64
  init(seed: UInt64) { state = seed }
  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}
