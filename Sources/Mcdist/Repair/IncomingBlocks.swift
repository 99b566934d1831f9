/// A receiver's side of repair: keeps the bodies of the newest blocks, and gives lost ones back when enough parities have
/// come. Bodies and parities are authentic.
package struct IncomingBlocks: ~Copyable {
  /// Blocks at once: parities follow their block at once.
  package static let blocksMax = 4

  private struct Block {
    var instance: UInt64 = 0
    var number = UInt32.max
    /// Datagrams that came, a bit each.
    var came: UInt64 = 0
    /// Which parities came, in their order.
    var parities: [Int] = []
  }

  private static let places = ErasureCode.blockSize + ErasureCode.paritiesMax
  private var blocks = [Block](repeating: Block(), count: blocksMax)
  /// Of each block its datagrams, then its parities. Taken with the first datagram.
  private var memory: UnsafeMutableRawPointer?

  package init() {}
  deinit {
    memory?.deallocate()
  }

  /// A datagram of pages came.
  package mutating func add(_ body: UnsafeRawBufferPointer, instance: UInt64, counter: UInt64) {
    guard body.count <= ErasureCode.symbolBytes else { return }
    let number = UInt32(truncatingIfNeeded: counter / UInt64(ErasureCode.blockSize))
    guard let index = place(instance, number) else { return }
    let datagram = Int(counter % UInt64(ErasureCode.blockSize))
    ErasureCode.set(symbol(index, datagram), to: body)
    blocks[index].came |= 1 << UInt64(datagram)
  }

  /// A parity came. Calls `recovered` with each body that it gives back; it is valid until something else
  /// is added.
  package mutating func add(
    _ packet: ParityPacket, _ parity: UnsafeRawPointer, recovered: (UnsafeRawBufferPointer) -> Void
  ) {
    guard let index = place(packet.instance, packet.block), blocks[index].came != .max,
      blocks[index].parities.count < ErasureCode.paritiesMax, !blocks[index].parities.contains(packet.index)
    else { return }
    symbol(index, ErasureCode.blockSize + blocks[index].parities.count).copyMemory(
      from: parity, byteCount: ErasureCode.symbolBytes)
    blocks[index].parities.append(packet.index)
    let lost = (0..<ErasureCode.blockSize).filter { blocks[index].came >> UInt64($0) & 1 == 0 }
    guard lost.count <= blocks[index].parities.count else { return }
    let parities = Array(blocks[index].parities.prefix(lost.count))
    solve(index, lost, parities)
    blocks[index].came = .max
    for datagram in lost {
      recovered(UnsafeRawBufferPointer(start: symbol(index, datagram), count: ErasureCode.symbolBytes))
    }
  }

  private func solve(_ index: Int, _ lost: [Int], _ parities: [Int]) {
    // What the parities are of the lost ones alone.
    for (row, parity) in parities.enumerated() {
      for datagram in 0..<ErasureCode.blockSize where blocks[index].came >> UInt64(datagram) & 1 != 0 {
        ErasureCode.add(
          symbol(index, datagram), times: ErasureCode.coefficient(parity: parity, datagram: datagram),
          to: symbol(index, ErasureCode.blockSize + row))
      }
    }
    let inverse = ErasureCode.inverse(parities: parities, datagrams: lost)
    for (row, datagram) in lost.enumerated() {
      let target = symbol(index, datagram)
      target.initializeMemory(as: UInt8.self, repeating: 0, count: ErasureCode.symbolBytes)
      for column in parities.indices {
        ErasureCode.add(
          symbol(index, ErasureCode.blockSize + column), times: inverse[row * lost.count + column], to: target
        )
      }
    }
  }

  /// Where the block is kept, instead of an older one; nil: it is older than those.
  private mutating func place(_ instance: UInt64, _ number: UInt32) -> Int? {
    if memory == nil {
      memory = .allocate(
        byteCount: Self.blocksMax * Self.places * ErasureCode.symbolBytes, alignment: 64)
    }
    let index = Int(number % UInt32(Self.blocksMax))
    if blocks[index].instance == instance {
      if blocks[index].number == number { return index }
      if Int32(bitPattern: number &- blocks[index].number) < 0, blocks[index].number != .max { return nil }
    }
    blocks[index].instance = instance
    blocks[index].number = number
    blocks[index].came = 0
    blocks[index].parities.removeAll(keepingCapacity: true)
    return index
  }

  private func symbol(_ block: Int, _ place: Int) -> UnsafeMutableRawPointer {
    memory! + (block * Self.places + place) * ErasureCode.symbolBytes
  }
}
