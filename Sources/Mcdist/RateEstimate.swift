/// Bytes a second as a weighted average over ticks of 10 ms (SnowFlock, "Multicast Distribution").
struct RateEstimate: Sendable {
  static let tick: UInt64 = 10_000_000
  /// Of the newest tick.
  private static let weight = 0.25

  private(set) var bytesPerSecond = 0.0
  private var tickEnd: UInt64 = 0
  private var bytes = 0

  mutating func add(_ count: Int, now: UInt64) {
    advance(now)
    bytes += count
  }

  mutating func advance(_ now: UInt64) {
    if tickEnd == 0 { tickEnd = now + Self.tick }
    guard now >= tickEnd else { return }
    let passed = (now - tickEnd) / Self.tick + 1
    fold(Double(bytes) * 1e9 / Double(Self.tick))
    bytes = 0
    // The ticks without a byte; after some dozen nothing is left.
    for _ in 0..<min(passed - 1, 64) { fold(0) }
    tickEnd += passed * Self.tick
  }

  private mutating func fold(_ rate: Double) { bytesPerSecond += Self.weight * (rate - bytesPerSecond) }
}
