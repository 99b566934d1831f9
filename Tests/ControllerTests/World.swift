import Controller
import Glibc

/// Chance from a seed (SplitMix64).
struct Chance {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var word = state
    word = (word ^ (word >> 30)) &* 0xbf58_476d_1ce4_e5b9
    word = (word ^ (word >> 27)) &* 0x94d0_49bb_1331_11eb
    return word ^ (word >> 31)
  }

  /// From 0 to below 1.
  mutating func share() -> Double { Double(next() >> 11) * 0x1p-53 }
  mutating func happens(_ probability: Double) -> Bool { share() < probability }
  mutating func between(_ low: Double, _ high: Double) -> Double { low + (high - low) * share() }
  /// Each factor as likely as any other.
  mutating func scale(_ low: Double, _ high: Double) -> Double { exp(between(log(low), log(high))) }
  /// A factor around 1 whose logarithm has this deviation.
  mutating func factor(_ deviation: Double) -> Double {
    exp(deviation * (-2 * log(1 - share())).squareRoot() * cos(2 * .pi * share()))
  }
}

/// A device, its clone, the link between them, and a program's blocks: all of it made from a seed. Times in µs.
struct World {
  struct Block {
    var id: BlockID
    /// At home, a call of size 1.
    var unitUs: Double
    var sizeLow: Double
    var sizeHigh: Double
    var givesHint: Bool
    var noise: Double
    /// A call's size, to which its moved bytes grow.
    var bytesBase: Double
    var bytesPerSize: Double
    var homeShareOfBytes: Double
  }

  var chance: Chance
  var blocks: [Block] = []
  var calls: Int
  /// How much longer than in a clone a block takes at home.
  var slowness: Double
  var roundTripUs: Double
  var bytesPerSecond: Double
  var tellsLink: Bool
  var forkUs: Double
  var mergeUs: Double
  var mergeUsPerByte: Double
  /// Shares of offloads that end so.
  var refused: Double
  var hangs: Double
  var earlyHome: Double
  /// Each call, with this probability, one of these changes.
  var drift: Double
  private(set) var changes = 0

  init(seed: UInt64) {
    chance = Chance(seed: seed)
    calls = Int(chance.scale(20, 3000))
    slowness = chance.happens(0.1) ? chance.scale(0.3, 1) : chance.scale(1, 40)
    roundTripUs = chance.scale(100, 500_000)
    bytesPerSecond = chance.scale(20e3, 1e8)
    tellsLink = chance.happens(0.5)
    forkUs = chance.scale(30e3, 10e6)
    mergeUs = chance.scale(1e3, 300e3)
    mergeUsPerByte = chance.between(0, 0.02)
    let fails = chance.happens(0.4)
    refused = fails ? chance.between(0, 0.15) : 0
    hangs = fails ? chance.between(0, 0.15) : 0
    earlyHome = chance.happens(0.1) ? chance.between(0, 1) : 0
    drift = chance.happens(0.5) ? chance.between(0, 6) / Double(calls) : 0
    for number in 0..<Int(chance.between(1, 4)) {
      let sizeLow = chance.scale(1, 1e6)
      blocks.append(
        Block(
          id: BlockID(program: "/bin/p\(number)", symbol: "block"),
          unitUs: chance.scale(1e3, 60e6) / sizeLow, sizeLow: sizeLow,
          sizeHigh: sizeLow * (chance.happens(0.5) ? 1.3 : chance.scale(1, 100)),
          givesHint: chance.happens(0.7), noise: chance.between(0.02, 0.4),
          bytesBase: chance.scale(10e3, 3e6), bytesPerSize: chance.happens(0.5) ? chance.between(0, 1) : 0,
          homeShareOfBytes: chance.between(0.1, 0.9)))
    }
  }

  /// One in which clones are reliable, nothing drifts, calls of a block are alike or tell their size, and a program
  /// has many of them: if offloading pays here, it is to be used.
  static func steady(seed: UInt64) -> World {
    var world = World(seed: seed)
    world.refused = 0
    world.hangs = 0
    world.earlyHome = 0
    world.drift = 0
    world.slowness = world.chance.scale(3, 40)
    for number in world.blocks.indices where !world.blocks[number].givesHint {
      world.blocks[number].sizeHigh = 1.3 * world.blocks[number].sizeLow
    }
    world.calls = world.blocks.count * Int(world.chance.scale(1000, 3000))
    return world
  }

  /// What one call would take here and there.
  struct Call {
    var call: BlockCall
    var homeUs: Double
    var times: OffloadTimes
    var end: End
    /// When it fails, after which time.
    var failureUs: Double
    enum End { case returns, refused, hangs, comesHomeEarly }
  }

  var link: CloneLink? {
    tellsLink ? CloneLink(roundTripUs: roundTripUs, bytesPerSecond: bytesPerSecond) : nil
  }

  mutating func next() -> Call {
    if chance.happens(drift) { change() }
    let block = blocks[Int(chance.share() * Double(blocks.count))]
    let size = chance.scale(block.sizeLow, block.sizeHigh)
    let workUs = block.unitUs * size * chance.factor(block.noise)
    let homeUs = workUs * chance.factor(0.05)
    var runUs = workUs / slowness * chance.factor(0.1)
    let bytes = (block.bytesBase + block.bytesPerSize * size) * chance.factor(0.2)
    let bytesHome = bytes * block.homeShareOfBytes
    let forwardUs =
      forkUs * chance.factor(0.15) + roundTripUs + (bytes - bytesHome) / bytesPerSecond * 1e6
    let mergeUs = (self.mergeUs + mergeUsPerByte * bytesHome) * chance.factor(0.2)
    var end = Call.End.returns
    let luck = chance.share()
    if luck < refused { end = .refused } else if luck < refused + hangs { end = .hangs }
    let failureUs = chance.share() * forwardUs
    if end == .returns && chance.happens(earlyHome) {
      end = .comesHomeEarly
      runUs *= chance.share()
    }
    let total = forwardUs + runUs + roundTripUs + bytesHome / bytesPerSecond * 1e6 + mergeUs
    return Call(
      call: BlockCall(block.id, sizeHint: block.givesHint ? UInt64(size) : nil), homeUs: homeUs,
      times: OffloadTimes(
        forwardUs: forwardUs, runUs: runUs, mergeUs: mergeUs, totalUs: total,
        bytesOut: UInt64(bytes - bytesHome), bytesHome: UInt64(bytesHome)),
      end: end, failureUs: failureUs)
  }

  /// Another link, a device on mains or on battery, a program that does other work.
  private mutating func change() {
    changes += 1
    switch chance.next() % 4 {
    case 0: bytesPerSecond = chance.scale(20e3, 1e8)
    case 1: roundTripUs = chance.scale(100, 500_000)
    case 2: slowness *= chance.scale(0.2, 5)
    default:
      let block = Int(chance.share() * Double(blocks.count))
      blocks[block].unitUs *= chance.scale(0.1, 10)
    }
  }
}
