/// What a datagram is. Numbers are on the wire.
package enum PacketKind: UInt8, Sendable {
  /// Client to server: `PageRequest`.
  case request = 1
  /// Server to clients: records, see `PageWriter`.
  case pages = 2
  /// Server to clients: no page will come any more; the body is the reason in UTF-8.
  case gone = 3
  /// Server to clients: `ParityPacket`.
  case parity = 4
}

/// The clear beginning of every datagram, authenticated with it. All numbers on the wire are little-endian.
///
///     0        2         3      4            8              16             24           n-16     n
///     | "SM"   | version | kind | zero       | instance     | counter      | sealed body | tag    |
///     | u16    | u8 = 1  | u8   | u32        | u64          | u64          | ≤ 1,360     | 16     |
///
/// instance: 64 random bits a sender draws at each start, one for each socket it sends to. counter: from 0, one more for
/// each datagram of an instance.
package struct PacketHeader: Equatable, Sendable {
  package static let bytes = 24
  package static let tagBytes = 16
  /// UDP payload: with IPv4 and UDP headers it fits an Ethernet frame of 1,500 with room for a tunnel.
  package static let datagramBytesMax = 1400
  package static let bodyBytesMax = datagramBytesMax - bytes - tagBytes
  /// Of datagrams of pages: what is coded of them fits a datagram of parity. 21 times 64.
  package static let pagesBodyBytesMax = 1344
  package static let pagesDatagramBytesMax = bytes + pagesBodyBytesMax + tagBytes
  package static let magic: UInt16 = 0x4d53
  package static let version: UInt8 = 2

  package var kind: PacketKind
  package var instance: UInt64
  package var counter: UInt64

  package init(kind: PacketKind, instance: UInt64, counter: UInt64) {
    self.kind = kind
    self.instance = instance
    self.counter = counter
  }

  /// Nil: no datagram of this protocol and version, or one without a body.
  package init?(_ datagram: UnsafeRawBufferPointer) {
    guard datagram.count > Self.bytes + Self.tagBytes, datagram.count <= Self.datagramBytesMax,
      datagram.little(UInt16.self, at: 0) == Self.magic, datagram[2] == Self.version,
      let kind = PacketKind(rawValue: datagram[3]), datagram.little(UInt32.self, at: 4) == 0
    else { return nil }
    self.kind = kind
    instance = datagram.little(UInt64.self, at: 8)
    counter = datagram.little(UInt64.self, at: 16)
  }

  package func write(to datagram: UnsafeMutableRawPointer) {
    datagram.storeLittle(Self.magic, at: 0)
    datagram.storeLittle(Self.version, at: 2)
    datagram.storeLittle(kind.rawValue, at: 3)
    datagram.storeLittle(UInt32(0), at: 4)
    datagram.storeLittle(instance, at: 8)
    datagram.storeLittle(counter, at: 16)
  }
}

extension UnsafeRawBufferPointer {
  /// The caller has checked that it is within.
  @inline(__always)
  package func little<Number: FixedWidthInteger>(_: Number.Type, at offset: Int) -> Number {
    Number(littleEndian: loadUnaligned(fromByteOffset: offset, as: Number.self))
  }
}

extension UnsafeMutableRawPointer {
  @inline(__always)
  package func storeLittle<Number: FixedWidthInteger>(_ number: Number, at offset: Int) {
    storeBytes(of: number.littleEndian, toByteOffset: offset, as: Number.self)
  }
}
