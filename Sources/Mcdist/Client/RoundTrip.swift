/// The time-out of a request, from measured round trips (RFC 6298, with limits for a local network). Nanoseconds.
struct RoundTrip: Sendable {
  static let first: UInt64 = 50_000_000
  static let floor: UInt64 = 6_000_000
  static let ceiling: UInt64 = 1_000_000_000

  private var smoothed = 0.0
  private var variation = 0.0
  var isKnown: Bool { smoothed > 0 }

  mutating func add(_ sample: UInt64) {
    let sample = Double(min(sample, Self.ceiling))
    if smoothed == 0 {
      (smoothed, variation) = (sample, sample / 2)
      return
    }
    variation += 0.25 * (abs(sample - smoothed) - variation)
    smoothed += 0.125 * (sample - smoothed)
  }

  /// After `attempts` tries without an answer. While the origin is heard a page was lost, and is asked for again soon:
  /// the server limits its own rate. An origin that says nothing is asked ever less often.
  func timeout(attempts: Int, isHeard: Bool) -> UInt64 {
    let base = isKnown ? UInt64(smoothed + 4 * variation) : Self.first
    return min(max(base, Self.floor) << UInt64(min(attempts, isHeard ? 2 : 8)), Self.ceiling)
  }
}
