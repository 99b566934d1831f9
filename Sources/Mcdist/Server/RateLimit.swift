/// How fast a server sends (SnowFlock, "Multicast Distribution": the limit grows linearly and falls to three quarters of
/// the clients' mean receive rate when a request shows loss).
///
/// The article's rule alone would halve the rate again and again where a link loses single datagrams by itself: there
/// every round trip shows loss, and the clients receive nearly all that is sent. So the limit falls only when loss is
/// congestion: the clients' mean receive rate is below nine tenths of the rate sent, or the mean client lacks more
/// than a twentieth. Then it falls to three quarters of that mean, at most once in 50 ms.
public struct RateLimit: Sendable {
  public static let floor = 4.0 * 1024 * 1024
  public static let ceiling = 4.0 * 1024 * 1024 * 1024
  static let start = 64.0 * 1024 * 1024
  /// A tick of 10 ms that used most of the limit adds this.
  static let growth = 2.0 * 1024 * 1024
  private static let pause: UInt64 = 50_000_000
  private static let burst = 4.0e-3

  public private(set) var bytesPerSecond = Self.start
  private(set) var sendRate = RateEstimate()
  private var credit = 256.0 * 1024
  private var lastRefill: UInt64 = 0
  private var lastGrowth: UInt64 = 0
  private var lastFall: UInt64 = 0

  /// The bytes that may be sent without waiting.
  mutating func refill(now: UInt64) {
    if lastRefill == 0 { (lastRefill, lastGrowth) = (now, now) }
    sendRate.advance(now)
    credit = min(
      credit + Double(now - lastRefill) * bytesPerSecond / 1e9, max(bytesPerSecond * Self.burst, 65536))
    lastRefill = now
    guard now - lastGrowth >= RateEstimate.tick else { return }
    lastGrowth = now
    if sendRate.bytesPerSecond > bytesPerSecond / 2 {
      bytesPerSecond = min(bytesPerSecond + Self.growth, Self.ceiling)
    }
  }

  var mayFill: Bool { credit > 0 }
  /// A page that a fault waits for may borrow, so that it is not delayed by what was sent ahead of need.
  var mayDemand: Bool { credit > -max(bytesPerSecond * Self.burst, 65536) }

  /// When there is credit again.
  func ready(now: UInt64) -> UInt64 {
    credit > 0 ? now : now + UInt64(-credit / bytesPerSecond * 1e9) + 100_000
  }

  mutating func charge(_ bytes: Int, now: UInt64) {
    credit -= Double(bytes)
    sendRate.add(bytes, now: now)
  }

  /// A client asked again for what had been sent. `meanReceive`: bytes a second, of the clients that told theirs;
  /// `meanLoss`: the share of the datagrams that the mean client lacks.
  mutating func loss(meanReceive: Double, meanLoss: Double, now: UInt64) {
    guard now - lastFall >= Self.pause, meanReceive > 0 else { return }
    let isCongestion = meanReceive < 0.9 * sendRate.bytesPerSecond && meanLoss > 0.02 || meanLoss > 0.05
    guard isCongestion else { return }
    lastFall = now
    bytesPerSecond = max(min(0.75 * meanReceive, bytesPerSecond), Self.floor)
  }
}
