/// Parities of blocks of datagrams: any `n` of them give back any `n` lost datagrams of their block. A Cauchy matrix over
/// GF(256), polynomial 0x11d: each of its square parts can be inverted.
package enum ErasureCode {
  /// Datagrams of a block, consecutive in the counter of their sender from a multiple of this on.
  package static let blockSize = 64
  package static let paritiesMax = 16
  /// What is coded of each: its body, with zeros up to this.
  package static let symbolBytes = PacketHeader.pagesBodyBytesMax

  package static func coefficient(parity: Int, datagram: Int) -> UInt8 {
    inverse(UInt8(blockSize + parity) ^ UInt8(datagram))
  }

  /// A body as it is coded.
  package static func set(_ symbol: UnsafeMutableRawPointer, to body: UnsafeRawBufferPointer) {
    symbol.copyMemory(from: body.baseAddress!, byteCount: body.count)
    (symbol + body.count).initializeMemory(
      as: UInt8.self, repeating: 0, count: symbolBytes - body.count)
  }

  /// `target` ^= `factor` · `source`, of `symbolBytes` each.
  package static func add(
    _ source: UnsafeRawPointer, times factor: UInt8, to target: UnsafeMutableRawPointer
  ) {
    typealias Lanes = SIMD8<UInt64>
    let (low, high, reduced) = (
      Lanes(repeating: 0x7f7f_7f7f_7f7f_7f7f), Lanes(repeating: 0x8080_8080_8080_8080),
      Lanes(repeating: 0x1d1d_1d1d_1d1d_1d1d)
    )
    var offset = 0
    while offset < symbolBytes {
      var power = source.loadUnaligned(fromByteOffset: offset, as: Lanes.self)
      var sum = target.loadUnaligned(fromByteOffset: offset, as: Lanes.self)
      var bits = factor
      while true {
        if bits & 1 != 0 { sum ^= power }
        bits >>= 1
        if bits == 0 { break }
        let top = power & high
        power = ((power & low) &<< 1) ^ (((top &<< 1) &- (top &>> 7)) & reduced)
      }
      target.storeBytes(of: sum, toByteOffset: offset, as: Lanes.self)
      offset += MemoryLayout<Lanes>.size
    }
  }

  /// The inverse of the square part of the matrix with these rows and columns: its rows one after the other.
  package static func inverse(parities: [Int], datagrams: [Int]) -> [UInt8] {
    let size = parities.count
    var rows = parities.map { parity in datagrams.map { coefficient(parity: parity, datagram: $0) } }
    var result = (0..<size).map { row in (0..<size).map { UInt8(row == $0 ? 1 : 0) } }
    for column in 0..<size {
      // A Cauchy matrix is regular in all its parts: a row with something in this column is there.
      let pivot = (column..<size).first { rows[$0][column] != 0 }!
      rows.swapAt(column, pivot)
      result.swapAt(column, pivot)
      let factor = inverse(rows[column][column])
      for index in 0..<size {
        rows[column][index] = product(rows[column][index], factor)
        result[column][index] = product(result[column][index], factor)
      }
      for row in 0..<size where row != column && rows[row][column] != 0 {
        let factor = rows[row][column]
        for index in 0..<size {
          rows[row][index] ^= product(rows[column][index], factor)
          result[row][index] ^= product(result[column][index], factor)
        }
      }
    }
    return result.flatMap { $0 }
  }

  package static func product(_ left: UInt8, _ right: UInt8) -> UInt8 {
    var (power, bits, sum) = (left, right, UInt8(0))
    while bits != 0 {
      if bits & 1 != 0 { sum ^= power }
      power = power << 1 ^ (power & 0x80 != 0 ? 0x1d : 0)
      bits >>= 1
    }
    return sum
  }

  /// Of a number that is not 0.
  private static func inverse(_ number: UInt8) -> UInt8 { inverses[Int(number)] }

  private static let inverses: [UInt8] = {
    var result = [UInt8](repeating: 0, count: 256)
    for left in 1...255 as ClosedRange<UInt8> {
      result[Int(left)] = (1...255 as ClosedRange<UInt8>).first { product(left, $0) == 1 }!
    }
    return result
  }()
}
