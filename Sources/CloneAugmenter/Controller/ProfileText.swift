// A profile is lines of ASCII:
//
//   snowfork-offload-profile 2
//   beside ESTIMATE                                      what offloads of any block took beside their runs
//   block PROGRAM SYMBOL account home failureShare failure lastUse
//   class INDEX ESTIMATE×4 bytes slowness slownessError knows slownessMax pending×3 failures givenUp unexplained
//         fruitless gate unwatchedRuns                   of the block above; one line
//   crc32 XXXXXXXX                                       of all bytes before this line
//
// An ESTIMATE is count, mean and variance. Times are µs. Names have every byte but letters, digits and "_./-+"
// as %XX.

extension Controller {
  /// Larger ones are refused: it is read whole.
  public static let profileBytesMax = 1 << 20
  private static let header = "snowfork-offload-profile 2"

  /// All that was learned, to be given to `init(profile:)` of a later process.
  public var profile: [UInt8] {
    var text = "\(Self.header)\nbeside \(besideRun.text)\n"
    for (id, block) in blocks.sorted(by: { $0.value.lastUse < $1.value.lastUse }) {
      text +=
        "block \(Self.escaped(id.program)) \(Self.escaped(id.symbol)) \(block.accountUs) \(block.homeUs) "
      text += "\(block.failureShare) \(block.failureUs) \(block.lastUse)\n"
      for (index, value) in block.classes.sorted(by: { $0.key < $1.key }) {
        text += "class \(index) \(value.text)\n"
      }
    }
    return Array(text.utf8) + Self.trailer(of: Array(text.utf8))
  }

  /// nil if it is damaged or of another version: then there is nothing to go on, and one begins anew.
  public init?(profile: [UInt8], limits: ControllerLimits = ControllerLimits()) {
    self.init(limits: limits)
    guard let text = Self.verified(profile) else { return nil }
    var lines = text.split(separator: "\n", omittingEmptySubsequences: false)[...]
    guard lines.popFirst().map(String.init) == Self.header, lines.popLast() == "" else { return nil }
    var current: BlockID?
    for line in lines {
      var fields = FieldReader(line)
      switch fields.word() {
      case "beside":
        guard let estimate = fields.estimate() else { return nil }
        besideRun = estimate
      case "block":
        guard let program = fields.name(), let symbol = fields.name(), let block = BlockProfile(&fields)
        else {
          return nil
        }
        let id = BlockID(program: program, symbol: symbol)
        guard blocks.updateValue(block, forKey: id) == nil else { return nil }
        decisions = max(decisions, block.lastUse)
        current = id
      case "class":
        guard let id = current, let index = fields.integer(), (-1...64).contains(index),
          let value = SizeClass(&fields), blocks[id]!.classes.updateValue(value, forKey: index) == nil
        else { return nil }
      default: return nil
      }
      guard fields.isAtEnd else { return nil }
    }
    guard blocks.count <= Self.blocksMax else { return nil }
  }

  /// Everything before the last line, if that is right.
  private static func verified(_ profile: [UInt8]) -> String? {
    guard profile.count > trailerBytes, profile.count <= profileBytesMax else { return nil }
    let body = Array(profile.dropLast(trailerBytes))
    guard Array(profile.suffix(trailerBytes)) == trailer(of: body) else { return nil }
    return String(decoding: body, as: UTF8.self)
  }

  private static let trailerBytes = "crc32 01234567\n".utf8.count

  private static func trailer(of body: [UInt8]) -> [UInt8] {
    let digits = String(CRC32.of(body), radix: 16)
    return Array("crc32 \(String(repeating: "0", count: 8 - digits.count))\(digits)\n".utf8)
  }

  private static func escaped(_ name: String) -> String {
    var result = ""
    for byte in name.utf8 {
      switch byte {
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "."), UInt8(ascii: "/"),
        UInt8(ascii: "-"), UInt8(ascii: "+"):
        result.unicodeScalars.append(Unicode.Scalar(byte))
      default:
        result += "%" + (byte < 16 ? "0" : "") + String(byte, radix: 16)
      }
    }
    return result.isEmpty ? "%" : result
  }
}

/// CRC-32 as of IEEE 802.3.
enum CRC32 {
  static func of(_ bytes: [UInt8]) -> UInt32 {
    var sum: UInt32 = 0xffff_ffff
    for byte in bytes {
      sum ^= UInt32(byte)
      for _ in 0..<8 { sum = sum & 1 == 1 ? (sum >> 1) ^ 0xedb8_8320 : sum >> 1 }
    }
    return ~sum
  }
}
