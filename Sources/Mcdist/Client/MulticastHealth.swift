/// Whether multicast from the origin arrives, and how much of it is lost on the way.
struct MulticastHealth: Sendable {
  private static let windowDatagrams: UInt64 = 256
  private static let lossMax = 0.30
  private static let lossGood = 0.10
  /// How often a receiver that fell back asks for a sign by multicast.
  static let probeInterval: UInt64 = 5_000_000_000
  /// Requests that time out with nothing heard by multicast, before the fall-back.
  private static let silentTimeouts = 3

  /// Why not multicast; nil: multicast.
  private(set) var reason: String?
  private var instance: UInt64 = 0
  private var first: UInt64 = 0
  private var heard: UInt64 = 0
  private var timeouts = 0
  /// Of the last full window, 0 to 1.
  private(set) var loss = 0.0

  /// An authentic datagram came by multicast. All of an instance's go to the group, so gaps in its counters are losses.
  mutating func heard(instance: UInt64, counter: UInt64) {
    timeouts = 0
    if instance != self.instance || counter < first {
      (self.instance, first, heard) = (instance, counter, 1)
    } else {
      heard += 1
      let sent = counter - first + 1
      if sent >= Self.windowDatagrams {
        loss = max(0, 1 - Double(heard) / Double(sent))
        (first, heard) = (counter + 1, 0)
      }
    }
    if reason != nil, loss <= Self.lossGood { reason = nil }
    if loss > Self.lossMax { reason = "multicast loses \(Int(loss * 100)) %" }
  }

  /// A request that was to be answered by multicast was not.
  mutating func timedOut() {
    timeouts += 1
    if timeouts >= Self.silentTimeouts, reason == nil { reason = "no multicast arrives" }
  }
}
