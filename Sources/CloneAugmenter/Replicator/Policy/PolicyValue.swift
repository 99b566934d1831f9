/// JSON (RFC 8259), its kinds told apart, each with the line that it begins in.
struct PolicyValue {
  enum Kind {
    case null
    case flag(Bool)
    case number(Double)
    case text(String)
    case array([PolicyValue])
    case object([Member])
  }
  struct Member {
    var key: String
    var line: Int
    var value: PolicyValue
  }
  var kind: Kind
  var line: Int

  /// One value, and nothing behind it.
  init(json bytes: [UInt8]) throws(PolicyError) {
    var reader = Reader(bytes: bytes)
    self = try reader.value(depth: 0)
    reader.skipSpace()
    guard reader.next == nil else { throw reader.refusal }
  }

  private init(_ kind: Kind, _ line: Int) {
    self.kind = kind
    self.line = line
  }

  private struct Reader {
    private static let depthMax = 16
    let bytes: [UInt8]
    private var at = 0
    private var line = 1

    init(bytes: [UInt8]) { self.bytes = bytes }

    var next: UInt8? { at < bytes.count ? bytes[at] : nil }
    var refusal: PolicyError { PolicyError("it is not JSON. Look for a missing comma or quote.", line: line) }

    mutating func skipSpace() {
      while let byte = next, [0x20, 0x0a, 0x0d, 0x09].contains(byte) {
        if byte == 0x0a { line += 1 }
        at += 1
      }
    }

    private mutating func takes(_ character: Unicode.Scalar) -> Bool {
      guard next == UInt8(ascii: character) else { return false }
      at += 1
      return true
    }

    mutating func value(depth: Int) throws(PolicyError) -> PolicyValue {
      skipSpace()
      let begin = line
      guard depth < Self.depthMax, let byte = next else { throw refusal }
      switch byte {
      case UInt8(ascii: "{"): return PolicyValue(.object(try members(depth)), begin)
      case UInt8(ascii: "["): return PolicyValue(.array(try elements(depth)), begin)
      case UInt8(ascii: "\""): return PolicyValue(.text(try text()), begin)
      case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"):
        return PolicyValue(.number(try number()), begin)
      default:
        for (word, kind) in [("true", Kind.flag(true)), ("false", .flag(false)), ("null", .null)]
        where bytes[at...].starts(with: word.utf8) {
          at += word.utf8.count
          return PolicyValue(kind, begin)
        }
        throw refusal
      }
    }

    private mutating func members(_ depth: Int) throws(PolicyError) -> [Member] {
      at += 1
      skipSpace()
      var members: [Member] = []
      if takes("}") { return members }
      repeat {
        skipSpace()
        let begin = line
        guard next == UInt8(ascii: "\"") else { throw refusal }
        let key = try text()
        if members.contains(where: { $0.key == key }) {
          throw PolicyError("“\(key)” is there twice. Take one away.", line: begin)
        }
        skipSpace()
        guard takes(":") else { throw refusal }
        members.append(Member(key: key, line: begin, value: try value(depth: depth + 1)))
        skipSpace()
      } while takes(",")
      guard takes("}") else { throw refusal }
      return members
    }

    private mutating func elements(_ depth: Int) throws(PolicyError) -> [PolicyValue] {
      at += 1
      skipSpace()
      var elements: [PolicyValue] = []
      if takes("]") { return elements }
      repeat {
        elements.append(try value(depth: depth + 1))
        skipSpace()
      } while takes(",")
      guard takes("]") else { throw refusal }
      return elements
    }

    private mutating func number() throws(PolicyError) -> Double {
      let begin = at
      _ = takes("-")
      let whole = digits()
      guard whole > 0, whole == 1 || bytes[at - whole] != UInt8(ascii: "0") else { throw refusal }
      if takes("."), digits() == 0 { throw refusal }
      if takes("e") || takes("E") {
        if !takes("+") { _ = takes("-") }
        guard digits() > 0 else { throw refusal }
      }
      guard let number = Double(String(decoding: bytes[begin..<at], as: UTF8.self)) else { throw refusal }
      return number
    }

    private mutating func digits() -> Int {
      let begin = at
      while let byte = next, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) { at += 1 }
      return at - begin
    }

    private mutating func text() throws(PolicyError) -> String {
      at += 1
      var text: [UInt8] = []
      while let byte = next, byte >= 0x20 {
        at += 1
        switch byte {
        case UInt8(ascii: "\""):
          guard let text = String(validating: text, as: UTF8.self) else { throw refusal }
          return text
        case UInt8(ascii: "\\"): text += try String(escaped()).utf8
        default: text.append(byte)
        }
      }
      throw refusal
    }

    private mutating func escaped() throws(PolicyError) -> Character {
      guard let byte = next else { throw refusal }
      at += 1
      switch byte {
      case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return Character(.init(byte))
      case UInt8(ascii: "b"): return "\u{8}"
      case UInt8(ascii: "f"): return "\u{c}"
      case UInt8(ascii: "n"): return "\n"
      case UInt8(ascii: "r"): return "\r"
      case UInt8(ascii: "t"): return "\t"
      case UInt8(ascii: "u"):
        var code = try unit()
        if 0xd800..<0xdc00 ~= code {
          guard takes("\\"), takes("u") else { throw refusal }
          let low = try unit()
          guard 0xdc00..<0xe000 ~= low else { throw refusal }
          code = 0x10000 + (code - 0xd800) << 10 + (low - 0xdc00)
        }
        guard let scalar = Unicode.Scalar(code) else { throw refusal }
        return Character(scalar)
      default: throw refusal
      }
    }

    private mutating func unit() throws(PolicyError) -> UInt32 {
      var code: UInt32 = 0
      for _ in 0..<4 {
        guard let byte = next, let digit = Character(.init(byte)).hexDigitValue else { throw refusal }
        code = code << 4 | UInt32(digit)
        at += 1
      }
      return code
    }
  }
}
