/// Whether this client gets pages by multicast, found out by itself.
struct TransportChoice: Sendable {
  private let configuration: ClientConfiguration
  private(set) var isUnicast: Bool
  private(set) var reason: String
  private var heardAt: UInt64?
  /// Time-outs in a row with no multicast heard since the request.
  private var silentTimeouts = 0
  private var silentSince: UInt64?
  private var changedAt: UInt64 = 0
  private var probedAt: UInt64 = 0
  /// The window in which loss is measured, by the counters of the server's datagrams.
  private var instance: UInt64 = 0
  private var lossyWindows = 0
  private var windowStart: UInt64 = 0
  private var windowFirst: UInt64 = 0
  private var highest: UInt64 = 0
  /// What a request says of it.
  var position: UInt32 { UInt32(truncatingIfNeeded: highest) }
  private var received: UInt64 = 0
  /// Of the last spans of 128 datagrams, weighted, those that did not come.
  private(set) var loss = 0.0
  private var isLossKnown = false
  private var spanFirst: UInt64 = 0
  private var spanReceived: UInt64 = 0
  /// Since `takeRecent`.
  private var recentFirst: UInt64 = 0
  private var recentReceived: UInt64 = 0

  init(_ configuration: ClientConfiguration) {
    self.configuration = configuration
    isUnicast = configuration.transport == .unicast
    reason = isUnicast ? "asked for" : ""
  }

  /// An authentic datagram came by multicast.
  mutating func heardMulticast(instance: UInt64, counter: UInt64, now: UInt64) {
    heardAt = now
    silentTimeouts = 0
    silentSince = nil
    if instance != self.instance {
      (recentFirst, recentReceived, spanFirst, spanReceived, highest) = (counter, 0, counter, 0, counter)
    }
    highest = max(highest, counter)
    recentReceived += 1
    spanReceived += 1
    if counter >= spanFirst + 128 {
      let sent = Double(counter - spanFirst + 1)
      let lost = max(0, 1 - Double(spanReceived) / sent)
      loss = isLossKnown ? loss * 7 / 8 + lost / 8 : lost
      isLossKnown = true
      (spanFirst, spanReceived) = (counter + 1, 0)
    }
    if isUnicast && reason == Self.silent { turn(unicast: false, "", now) }
    if instance != self.instance || now > windowStart + 5_000_000_000 {
      (self.instance, windowStart, windowFirst, received) = (instance, now, highest, 1)
      return
    }
    guard configuration.transport == .auto else { return }
    received += 1
    let sent = highest &- windowFirst &+ 1
    guard now >= windowStart + 1_000_000_000, sent >= 200 else { return }
    let percent = received >= sent ? 0 : Int((sent - received) * 100 / sent)
    lossyWindows = percent > 30 ? lossyWindows + 1 : 0
    // A server that sends too fast for all finds that out meanwhile; unicast for all would make it worse.
    if !isUnicast && lossyWindows >= 2 {
      turn(unicast: true, "multicast loses \(percent) %", now)
    } else if isUnicast && percent < 10 && now > changedAt + configuration.probe {
      turn(unicast: false, "", now)
    }
    (windowStart, windowFirst, received) = (now, highest &+ 1, 0)
  }

  /// Multicast datagrams since it was called last: how many came, and how many were sent.
  mutating func takeRecent() -> (came: Int, sent: Int) {
    defer { (recentFirst, recentReceived) = (highest &+ 1, 0) }
    // Datagrams that came in another order may be older than those of the last time.
    let sent = highest &+ 1 >= recentFirst ? highest &+ 1 &- recentFirst : 0
    return (Int(clamping: min(recentReceived, 1 << 32)), Int(clamping: min(sent, 1 << 32)))
  }

  /// A page asked for at `sentAt` did not come in time.
  mutating func timedOut(sentAt: UInt64, now: UInt64) {
    guard configuration.transport == .auto, !isUnicast else { return }
    if let heardAt, heardAt >= sentAt { return }
    silentTimeouts += 1
    let since = silentSince ?? sentAt
    silentSince = since
    if silentTimeouts >= 3 && now > since + 250_000_000 { turn(unicast: true, Self.silent, now) }
  }

  /// What to say in a request. By unicast, one in each `probe` asks for multicast and shows whether it arrives.
  mutating func wantsUnicast(now: UInt64) -> Bool {
    guard isUnicast else { return false }
    guard configuration.transport == .auto, now >= max(probedAt, changedAt) + configuration.probe else {
      return true
    }
    probedAt = now
    return false
  }

  private static let silent = "no multicast arrives"

  private mutating func turn(unicast: Bool, _ reason: String, _ now: UInt64) {
    isUnicast = unicast
    self.reason = reason
    changedAt = now
    silentTimeouts = 0
    silentSince = nil
  }
}
