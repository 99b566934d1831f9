/// The fields of a body, one after the other without padding: numbers little endian; bytes and text as a u32 length
/// and then the bytes; a list as a u32 count and then its elements.

/// Limits that hold for writer and reader alike.
package enum FieldLimit {
  /// Tickets, snapshots, names, addresses.
  package static let name = 256
  /// Reasons and error messages.
  package static let text = 4096
  /// A clone's result.
  package static let result = 1 << 20
  /// What one frame of a command's input or output carries, so that other frames are not kept waiting.
  package static let stream = 64 << 10
  /// argv and env: elements, and bytes of one.
  package static let listCount = 4096
  package static let listElement = 128 << 10
}

package struct FieldWriter {
  package private(set) var bytes: [UInt8] = []

  package init() {}

  package mutating func number<Number: FixedWidthInteger>(_ number: Number) {
    bytes.append(littleEndian: number)
  }

  package mutating func fixed(
    _ field: String, _ value: [UInt8], count: Int
  ) throws(GuestWireError) {
    guard value.count == count else {
      throw .wrongLength(field: field, length: value.count, expected: count)
    }
    bytes.append(contentsOf: value)
  }

  package mutating func data(
    _ field: String, _ value: [UInt8], limit: Int
  ) throws(GuestWireError) {
    guard value.count <= limit else {
      throw .tooLong(field: field, length: value.count, limit: limit)
    }
    number(UInt32(value.count))
    bytes.append(contentsOf: value)
  }

  package mutating func text(
    _ field: String, _ value: String, limit: Int = FieldLimit.name
  ) throws(GuestWireError) {
    try data(field, Array(value.utf8), limit: limit)
  }

  package mutating func list(_ field: String, _ values: [String]) throws(GuestWireError) {
    guard values.count <= FieldLimit.listCount else {
      throw .tooLong(field: field, length: values.count, limit: FieldLimit.listCount)
    }
    number(UInt32(values.count))
    for value in values { try text(field, value, limit: FieldLimit.listElement) }
  }
}

package struct FieldReader {
  private let bytes: [UInt8]
  private var offset = 0

  package init(_ bytes: [UInt8]) { self.bytes = bytes }

  private var remaining: Int { bytes.count - offset }

  private mutating func take(_ field: String, _ count: Int) throws(GuestWireError) -> ArraySlice<UInt8> {
    guard count <= remaining else { throw .truncated(field: field) }
    defer { offset += count }
    return bytes[offset..<offset + count]
  }

  package mutating func number<Number: FixedWidthInteger>(
    _ field: String, as: Number.Type = Number.self
  ) throws(GuestWireError) -> Number {
    var value: Number = 0
    for byte in try take(field, MemoryLayout<Number>.size).reversed() {
      value = (value << 8) | Number(truncatingIfNeeded: byte)
    }
    return value
  }

  /// 0 or 1; anything else is refused.
  package mutating func flag(_ field: String) throws(GuestWireError) -> Bool {
    let value: UInt8 = try number(field)
    guard value <= 1 else { throw .unknownValue(field: field, value: UInt64(value)) }
    return value == 1
  }

  package mutating func fixed(_ field: String, count: Int) throws(GuestWireError) -> [UInt8] {
    Array(try take(field, count))
  }

  package mutating func data(_ field: String, limit: Int) throws(GuestWireError) -> [UInt8] {
    Array(try counted(field, limit: limit))
  }

  private mutating func counted(_ field: String, limit: Int) throws(GuestWireError) -> ArraySlice<UInt8> {
    let length = Int(try number(field, as: UInt32.self))
    guard length <= limit else { throw .tooLong(field: field, length: length, limit: limit) }
    return try take(field, length)
  }

  package mutating func text(
    _ field: String, limit: Int = FieldLimit.name
  ) throws(GuestWireError) -> String {
    let bytes = try counted(field, limit: limit)
    // Decoding repairs what is not UTF-8, which the comparison finds. Not String(validating:as:): its generic code
    // makes the first message of a new clone, where nothing is translated yet, 10 ms slower under TCG.
    let text = String(decoding: bytes, as: UTF8.self)
    guard text.utf8.elementsEqual(bytes) else { throw .notUTF8(field: field) }
    return text
  }

  package mutating func nonEmptyText(_ field: String) throws(GuestWireError) -> String {
    let text = try text(field)
    guard !text.isEmpty else { throw .unknownValue(field: field, value: 0) }
    return text
  }

  package mutating func list(_ field: String) throws(GuestWireError) -> [String] {
    let count = Int(try number(field, as: UInt32.self))
    guard count <= FieldLimit.listCount else {
      throw .tooLong(field: field, length: count, limit: FieldLimit.listCount)
    }
    var values: [String] = []
    for _ in 0..<count { values.append(try text(field, limit: FieldLimit.listElement)) }
    return values
  }

  /// To be called after the last field.
  package func finish() throws(GuestWireError) {
    guard remaining == 0 else { throw .trailingBytes(remaining) }
  }
}
