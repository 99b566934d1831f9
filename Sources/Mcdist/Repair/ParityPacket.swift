import GuestMemory

/// The body of a datagram of parity.
///
///     0          8          12      13     16
///     | instance | block    | index | zero | parity of the bodies of the block's datagrams
///     | u64      | u32      | u8    | 3    | 1,344 bytes
///
/// instance: of the datagrams of pages. block: their counter divided by 64, its low 32 bits. index: which parity.
package struct ParityPacket: Equatable, Sendable {
  package static let headerBytes = 16
  package var instance: UInt64
  package var block: UInt32
  package var index: Int

  package init(instance: UInt64, block: UInt32, index: Int) {
    (self.instance, self.block, self.index) = (instance, block, index)
  }

  package init?(_ body: UnsafeRawBufferPointer) {
    guard body.count == Self.headerBytes + ErasureCode.symbolBytes, body[12] < ErasureCode.paritiesMax,
      body[13] == 0, body[14] == 0, body[15] == 0
    else { return nil }
    self.init(
      instance: body.little(UInt64.self, at: 0), block: body.little(UInt32.self, at: 8), index: Int(body[12]))
  }

  package func write(to body: UnsafeMutableRawPointer) {
    body.storeLittle(instance, at: 0)
    body.storeLittle(block, at: 8)
    body.storeLittle(UInt32(index), at: 12)
  }
}
