/// Bytes a second: a weighted average over ticks of 10 ms, the newest with an eighth.
struct RateEstimate: Sendable {
  static let tick: UInt64 = 10_000_000
  private var tickStart: UInt64?
  private var bytes = 0.0
  private var perTick = 0.0
  private(set) var isKnown = false

  mutating func add(_ count: Int, now: UInt64) {
    advance(to: now)
    bytes += Double(count)
  }

  mutating func bytesPerSecond(now: UInt64) -> Double {
    advance(to: now)
    return perTick * 100
  }

  private mutating func advance(to now: UInt64) {
    guard var start = tickStart else {
      tickStart = now
      return
    }
    if now >= start + 200 * Self.tick {  // nothing for 2 s: what is left of the average is 0
      (perTick, bytes, start) = (0, 0, now)
    }
    while now >= start + Self.tick {
      perTick = isKnown ? perTick * 7 / 8 + bytes / 8 : bytes
      isKnown = isKnown || bytes > 0
      bytes = 0
      start += Self.tick
    }
    tickStart = start
  }
}
