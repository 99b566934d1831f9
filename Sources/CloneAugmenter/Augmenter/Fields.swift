/// Fields of 64 bits, and bytes behind their count, filled up to a multiple of 8.
struct FieldWriter {
  var output: [UInt8] = []

  mutating func word(_ value: UInt64) {
    withUnsafeBytes(of: value.littleEndian) { output.append(contentsOf: $0) }
  }

  mutating func bytes(_ bytes: [UInt8]) {
    word(UInt64(bytes.count))
    output += bytes
    while output.count % 8 != 0 { output.append(0) }
  }
}

struct FieldReader {
  private let all: UnsafeRawBufferPointer
  private var at = 0

  init(_ bytes: UnsafeRawBufferPointer) { all = bytes }

  var isAtEnd: Bool { at == all.count }

  mutating func word() throws(ResultError) -> UInt64 {
    guard all.count - at >= 8 else { throw ResultError("its length") }
    defer { at += 8 }
    return UInt64(littleEndian: all.loadUnaligned(fromByteOffset: at, as: UInt64.self))
  }

  mutating func count(_ limit: UInt32) throws(ResultError) -> Int {
    let count = try word()
    guard count <= UInt64(limit) else { throw ResultError("a count") }
    return Int(count)
  }

  mutating func bytes(limit: Int) throws(ResultError) -> [UInt8] {
    let count = try count(UInt32(limit))
    let whole = (count + 7) & ~7
    guard all.count - at >= whole else { throw ResultError("its length") }
    defer { at += whole }
    return Array(all[at..<at + count])
  }

  mutating func text() throws(ResultError) -> String {
    let bytes = try bytes(limit: 4096)
    let text = String(decoding: bytes, as: UTF8.self)
    guard text.utf8.elementsEqual(bytes), !bytes.contains(0) else { throw ResultError("a path") }
    return text
  }
}
