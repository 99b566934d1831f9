/// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78), eight bytes at a step.
///
/// Software tables rather than the SSE4.2 instruction: the agent also runs under emulated CPUs that have none.
/// Check value: "123456789" → 0xE3069283 (RFC 3720, appendix B.4).
public enum CRC32C {
  public static func checksum(_ bytes: [UInt8]) -> UInt32 {
    bytes.withUnsafeBytes { checksum($0) }
  }

  public static func checksum(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
    tables.withUnsafeBufferPointer { table in
      var crc: UInt32 = 0xFFFF_FFFF
      var offset = 0
      while bytes.count - offset >= 8 {
        let word =
          UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
          ^ UInt64(crc)
        crc =
          table[7 &* 256 &+ Int(word & 0xFF)]
          ^ table[6 &* 256 &+ Int((word >> 8) & 0xFF)]
          ^ table[5 &* 256 &+ Int((word >> 16) & 0xFF)]
          ^ table[4 &* 256 &+ Int((word >> 24) & 0xFF)]
          ^ table[3 &* 256 &+ Int((word >> 32) & 0xFF)]
          ^ table[2 &* 256 &+ Int((word >> 40) & 0xFF)]
          ^ table[256 &+ Int((word >> 48) & 0xFF)]
          ^ table[Int(word >> 56)]
        offset &+= 8
      }
      while offset < bytes.count {
        crc = (crc >> 8) ^ table[Int((crc ^ UInt32(bytes[offset])) & 0xFF)]
        offset &+= 1
      }
      return ~crc
    }
  }

  /// Table k, at 256·k, advances a byte over k further zero bytes.
  private static let tables: [UInt32] = {
    var tables = [UInt32](repeating: 0, count: 8 * 256)
    for index in 0..<256 {
      var crc = UInt32(index)
      for _ in 0..<8 { crc = (crc >> 1) ^ (crc & 1 == 1 ? 0x82F6_3B78 : 0) }
      tables[index] = crc
    }
    for index in 256..<tables.count {
      let previous = tables[index - 256]
      tables[index] = (previous >> 8) ^ tables[Int(previous & 0xFF)]
    }
    return tables
  }()
}
