import GuestMemory
import Mcdist

/// Packets by multicast that are coded together: what of it was sent.
final class SimulatedBlock {
  let number: Int
  var pages: [PageIndex] = []
  init(number: Int) { self.number = number }

  var isWhole: Bool { pages.count == ErasureCode.blockSize }
}

/// What a client has of the newest blocks: `IncomingBlocks` without the bytes.
struct HeardBlocks {
  private struct Heard {
    var number = -1
    var came: UInt64 = 0
    var parities = 0
  }
  private var blocks = [Heard](repeating: Heard(), count: IncomingBlocks.blocksMax)

  mutating func add(_ block: SimulatedBlock, _ counter: UInt64) {
    guard let place = place(block) else { return }
    blocks[place].came |= 1 << (counter % UInt64(ErasureCode.blockSize))
  }

  /// The pages that it gives back.
  mutating func addParity(of block: SimulatedBlock) -> [PageIndex] {
    guard let place = place(block), blocks[place].came != .max else { return [] }
    blocks[place].parities += 1
    guard (~blocks[place].came).nonzeroBitCount <= blocks[place].parities else { return [] }
    let lost = block.pages.indices.filter { blocks[place].came >> UInt64($0) & 1 == 0 }.map {
      block.pages[$0]
    }
    blocks[place].came = .max
    return lost
  }

  private mutating func place(_ block: SimulatedBlock) -> Int? {
    let place = block.number % blocks.count
    if blocks[place].number > block.number { return nil }
    if blocks[place].number < block.number { blocks[place] = Heard(number: block.number) }
    return place
  }
}
