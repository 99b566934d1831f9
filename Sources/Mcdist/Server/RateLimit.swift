/// How fast a server may send: a token bucket whose limit grows linearly while it is used and falls when receivers
/// fall behind (docs/mcdist-protocol.md, "Flow control").
struct RateLimit: Sendable {
  private let configuration: ServerConfiguration
  private(set) var bytesPerSecond: Double
  private var tokens: Double
  private var filledAt: UInt64?
  private var tickStart: UInt64 = 0
  /// Bytes of this tick.
  private var tickBytes = 0.0
  private var scaledBackAt: UInt64?
  private var rate = RateEstimate()

  init(_ configuration: ServerConfiguration) {
    self.configuration = configuration
    bytesPerSecond = configuration.initialRate
    tokens = 0
    tokens = capacity
  }

  /// What may be sent at once: a tick's worth, and at least one call of many datagrams.
  private var capacity: Double { max(bytesPerSecond / 100, Self.burst) }
  static let burst = 61_600.0

  /// A demanded page goes out in advance of up to four ticks: a fault waits for it.
  mutating func maySend(_ urgency: PageRequest.Urgency, now: UInt64) -> Bool {
    fill(now)
    return urgency == .demand ? tokens > -4 * capacity : tokens > 0
  }

  mutating func sent(_ bytes: Int, now: UInt64) {
    fill(now)
    tokens -= Double(bytes)
    tickBytes += Double(bytes)
    rate.add(bytes, now: now)
  }

  /// Bytes a second, weighted average.
  mutating func sendRate(now: UInt64) -> Double { rate.bytesPerSecond(now: now) }

  /// When the bucket has enough for a whole call of many datagrams.
  func refilled(_ urgency: PageRequest.Urgency, now: UInt64) -> UInt64 {
    let wanted = urgency == .demand ? -4 * capacity + Self.burst / 2 : min(Self.burst / 2, capacity)
    return tokens >= wanted ? now : now + UInt64((wanted - tokens) / bytesPerSecond * 1e9) + 1
  }

  /// A request has shown loss. `delivered`: bytes a second that the receivers say they get. Falls at most once in 50 ms.
  /// `reported`: of the datagrams by multicast, what receivers say they lost, in the mean. It tells of congestion also
  /// where pages go out in bursts and no average is as high as the limit.
  mutating func showsLoss(delivered: Double?, lossRatio: Double, reported: Double, now: UInt64) {
    if reported > 0.3 {
      if let scaledBackAt, now < scaledBackAt + 100_000_000 { return }
      fall(to: bytesPerSecond * 0.75 * (1 - reported), now)
      return
    }
    let sending = sendRate(now: now)
    guard let delivered, sending > bytesPerSecond / 2 else { return }
    if let scaledBackAt, now < scaledBackAt + 50_000_000 { return }
    guard delivered < 0.9 * sending || lossRatio > 0.25 else { return }
    fall(to: min(bytesPerSecond, 0.75 * delivered), now)
  }

  private mutating func fall(to rate: Double, _ now: UInt64) {
    scaledBackAt = now
    bytesPerSecond = max(configuration.floorRate, rate)
    tokens = min(tokens, capacity)
  }

  private mutating func fill(_ now: UInt64) {
    guard let last = filledAt else {
      filledAt = now
      tickStart = now
      return
    }
    guard now > last else { return }
    tokens = min(capacity, tokens + Double(now - last) / 1e9 * bytesPerSecond)
    filledAt = now
    guard now >= tickStart + RateEstimate.tick else { return }
    let ticks = Double((now - tickStart) / RateEstimate.tick)
    if tickBytes >= 0.75 * bytesPerSecond / 100 * ticks {
      // Until receivers have fallen behind once nobody knows what the network bears. Then a quarter, which a fall takes away,
      // is got back in about ten ticks, however slow the network is.
      let growth =
        scaledBackAt == nil
        ? max(configuration.growthPerTick, bytesPerSecond / 8)
        : min(configuration.growthPerTick, bytesPerSecond / 32)
      bytesPerSecond = min(configuration.ceilingRate, bytesPerSecond + growth)
    }
    tickBytes = 0
    tickStart += UInt64(ticks) * RateEstimate.tick
  }
}
