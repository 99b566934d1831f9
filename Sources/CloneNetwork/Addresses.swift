/// An IPv4 address. Its number is in the machine's order: 10.0.0.1 is 0x0A000001.
public struct IPv4Address: Hashable, Comparable, Sendable, CustomStringConvertible {
  public var number: UInt32

  public init(number: UInt32) { self.number = number }

  /// `10.0.0.1`: four decimal numbers, no other form. Nil: it is not one.
  public init?(_ text: String) {
    let parts = text.split(separator: ".", omittingEmptySubsequences: false)
    guard parts.count == 4 else { return nil }
    var number: UInt32 = 0
    for part in parts {
      // A leading zero means octal to some: nobody shall read another address than we do.
      guard part.utf8.allSatisfy({ (0x30...0x39).contains($0) }), part.count == 1 || part.first != "0",
        let byte = UInt8(part)
      else { return nil }
      number = number << 8 | UInt32(byte)
    }
    self.number = number
  }

  /// Of four bytes in the network's order.
  init(bytes: some Sequence<UInt8>) { number = bytes.reduce(0) { $0 << 8 | UInt32($1) } }

  /// In the network's order.
  public var bytes: [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: number >> (24 - 8 * $0)) } }

  public var description: String { bytes.map(String.init).joined(separator: ".") }

  public static func < (left: IPv4Address, right: IPv4Address) -> Bool { left.number < right.number }
}

/// A range of IPv4 addresses: `10.111.0.0/16`.
public struct IPv4Subnet: Hashable, Sendable, CustomStringConvertible {
  /// Its lowest address.
  public let base: IPv4Address
  /// 0 to 32.
  public let prefixLength: Int

  /// Nil: more than 32 bits, or `base` has bits behind the prefix.
  public init?(base: IPv4Address, prefixLength: Int) {
    guard (0...32).contains(prefixLength) else { return nil }
    self.base = base
    self.prefixLength = prefixLength
    guard base.number & ~mask == 0 else { return nil }
  }

  /// `10.111.0.0/16`; an address alone is a range of one.
  public init?(_ text: String) {
    let parts = text.split(separator: "/", omittingEmptySubsequences: false)
    guard parts.count <= 2, let base = IPv4Address(String(parts[0])) else { return nil }
    guard parts.count == 2 else {
      self.init(base: base, prefixLength: 32)
      return
    }
    let digits = parts[1]
    guard (1...2).contains(digits.utf8.count), digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }),
      let length = Int(digits)
    else { return nil }
    self.init(base: base, prefixLength: length)
  }

  private var mask: UInt32 { prefixLength == 0 ? 0 : ~0 << (32 - UInt32(prefixLength)) }

  public var count: UInt64 { 1 << (32 - UInt64(prefixLength)) }

  /// Its highest address.
  public var last: IPv4Address { IPv4Address(number: base.number | ~mask) }

  public func contains(_ address: IPv4Address) -> Bool { address.number & mask == base.number }

  public var description: String { "\(base)/\(prefixLength)" }
}

/// A MAC address.
public struct MACAddress: Hashable, Sendable, CustomStringConvertible {
  /// Six of them.
  public let bytes: [UInt8]

  /// Nil: not six bytes.
  public init?(bytes: [UInt8]) {
    guard bytes.count == 6 else { return nil }
    self.bytes = bytes
  }

  /// `02:5f:0a:6f:00:02`, in letters of either case. Nil: it is not one.
  public init?(_ text: String) {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    let bytes = parts.compactMap { part in
      part.utf8.count == 2 && part.allSatisfy(\.isHexDigit) ? UInt8(part, radix: 16) : nil
    }
    guard parts.count == 6, bytes.count == 6 else { return nil }
    self.bytes = bytes
  }

  /// Whether a network card may have it: neither a group's nor all zeros.
  public var isUnicast: Bool { bytes[0] & 1 == 0 && bytes.contains { $0 != 0 } }

  public var description: String {
    bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined(separator: ":")
  }
}
