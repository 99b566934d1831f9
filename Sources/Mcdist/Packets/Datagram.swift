import GuestMemory

/// One datagram. All numbers are little-endian; nothing is delivered of a datagram that does not authenticate.
///
///     0       4      5         6        8            16           24                             n-16     n
///     | magic | kind | version | unused | instance   | counter    | body, encrypted              | tag    |
///     |<------------------ in clear, authenticated ------------->|<--- AES-256-GCM ------------>|
///
/// `instance` is a random number of the sender's run and, with the snapshot's key, makes the datagram's key (`Seal`);
/// `counter` is its nonce. At most 1,400 bytes, so that Ethernet carries it without IP fragments.
public enum Datagram {
  public static let bytesMax = 1400
  static let headerBytes = 24
  static let tagBytes = 16
  /// What fits into one.
  public static let bodyMax = bytesMax - headerBytes - tagBytes
  static let magic: UInt32 = 0x314D_4653  // "SFM1"
  static let version: UInt8 = 1

  public enum Kind: UInt8, Sendable {
    /// Receiver to server: a `PageRequest`.
    case request = 1
    /// Server to receivers: page records.
    case pages = 2
    /// Server to receivers: no page will come any more; the body is the reason, UTF-8.
    case gone = 3
  }
}

/// Writes numbers into a buffer of known size.
struct BodyWriter {
  let start: UnsafeMutableRawPointer
  let capacity: Int
  private(set) var count = 0

  init(_ start: UnsafeMutableRawPointer, capacity: Int) {
    self.start = start
    self.capacity = capacity
  }

  var room: Int { capacity - count }

  @inline(__always)
  mutating func put<T: FixedWidthInteger>(_ value: T) {
    precondition(room >= MemoryLayout<T>.size)
    (start + count).storeBytes(of: value.littleEndian, as: T.self)
    count += MemoryLayout<T>.size
  }

  @inline(__always)
  mutating func put(_ bytes: UnsafeRawPointer, count length: Int) {
    precondition(room >= length)
    (start + count).copyMemory(from: bytes, byteCount: length)
    count += length
  }

  mutating func pad() {
    (start + count).initializeMemory(as: UInt8.self, repeating: 0, count: room)
    count = capacity
  }

  mutating func reset() { count = 0 }
}

/// Reads numbers; nil past the end.
struct BodyReader {
  private let bytes: UnsafeRawBufferPointer
  private var at = 0

  init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

  var left: Int { bytes.count - at }

  @inline(__always)
  mutating func take<T: FixedWidthInteger>(_ type: T.Type = T.self) -> T? {
    guard left >= MemoryLayout<T>.size else { return nil }
    defer { at += MemoryLayout<T>.size }
    return T(littleEndian: bytes.loadUnaligned(fromByteOffset: at, as: T.self))
  }

  @inline(__always)
  mutating func take(_ count: Int) -> UnsafeRawBufferPointer? {
    guard count >= 0, left >= count else { return nil }
    defer { at += count }
    return UnsafeRawBufferPointer(rebasing: bytes[at..<at + count])
  }
}
