/// From a request to its page: RFC 6298's estimate. Only pages asked for once count (Karn's rule).
struct RoundTrip: Sendable {
  private(set) var smoothed = 0.0
  private var variation = 0.0

  mutating func sample(nanoseconds: UInt64) {
    let sample = Double(nanoseconds)
    if smoothed == 0 {
      (smoothed, variation) = (sample, sample / 2)
    } else {
      variation = variation * 3 / 4 + abs(smoothed - sample) / 4
      smoothed = smoothed * 7 / 8 + sample / 8
    }
  }

  /// How long to wait before asking again for the `level`-th time.
  func timeout(level: Int, _ configuration: ClientConfiguration) -> UInt64 {
    let first =
      smoothed == 0
      ? configuration.retryInitial : max(configuration.retryMin, UInt64(smoothed + 4 * variation))
    return min(configuration.retryMax, min(first, configuration.retryMax) << UInt64(min(level, 10)))
  }
}
