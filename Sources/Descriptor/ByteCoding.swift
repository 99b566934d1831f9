/// Appends little-endian values to a byte array.
struct ByteWriter {
  private(set) var bytes: [UInt8] = []

  mutating func append<T: FixedWidthInteger>(_ value: T) {
    withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
  }

  mutating func append(bytes more: [UInt8]) { bytes.append(contentsOf: more) }

  /// 16 bits of length, then UTF-8.
  mutating func append(_ text: String, field: String) throws(DescriptorError) {
    let utf8 = Array(text.utf8)
    guard let length = UInt16(exactly: utf8.count) else {
      throw .sizes("\(field) is \(utf8.count) bytes long, \(DescriptorFormat.stringBytesMax) at most")
    }
    append(length)
    append(bytes: utf8)
  }

  /// 7 bits a byte, low bits first; the high bit says that more follow.
  mutating func append(varint value: UInt64) {
    var rest = value
    while rest >= 0x80 {
      bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
      rest >>= 7
    }
    bytes.append(UInt8(rest))
  }
}

/// Reads little-endian values out of borrowed bytes. Every read is checked against what is left.
///
/// Does not outlive the buffer that it was made with.
struct ByteReader {
  private let buffer: UnsafeRawBufferPointer
  private var offset = 0

  init(_ buffer: UnsafeRawBufferPointer) { self.buffer = buffer }

  var remaining: Int { buffer.count - offset }

  private mutating func take(_ count: Int) throws(DescriptorError) -> UnsafeRawBufferPointer {
    guard count >= 0, count <= remaining else {
      let end = UInt64(offset) + UInt64(max(count, 0))
      throw .truncated(expectedBytes: end, actualBytes: UInt64(buffer.count))
    }
    defer { offset += count }
    return UnsafeRawBufferPointer(rebasing: buffer[offset..<(offset + count)])
  }

  mutating func integer<T: FixedWidthInteger>(_ type: T.Type = T.self) throws(DescriptorError) -> T {
    T(littleEndian: try take(MemoryLayout<T>.size).loadUnaligned(as: T.self))
  }

  mutating func bytes(_ count: Int) throws(DescriptorError) -> [UInt8] { Array(try take(count)) }

  mutating func string(_ field: String) throws(DescriptorError) -> String {
    let length = try integer(UInt16.self)
    guard let text = String(validating: try take(Int(length)), as: UTF8.self) else {
      throw .malformed("\(field) is not UTF-8")
    }
    return text
  }

  /// Refuses a value over 64 bits, and one coded in more bytes than it needs.
  mutating func varint() throws(DescriptorError) -> UInt64 {
    var value: UInt64 = 0
    var shift: UInt64 = 0
    while true {
      let byte: UInt8 = try integer()
      if shift == 63, byte > 1 { throw .malformed("a number over 64 bits") }
      value |= UInt64(byte & 0x7F) << shift
      if byte < 0x80 {
        if byte == 0, shift > 0 { throw .malformed("a number with needless bytes") }
        return value
      }
      shift += 7
    }
  }
}
