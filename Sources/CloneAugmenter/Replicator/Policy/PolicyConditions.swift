/// What a device's circumstances are at a moment. What is not known is nil.
public struct PolicyConditions: Sendable, Equatable {
  public enum Power: Sendable, Equatable {
    /// At the mains, or without a battery.
    case external
    /// Percent, 0 to 100; nil: it does not tell.
    case battery(percent: Int?)
  }

  /// Whether bytes over the link cost money.
  public var isMetered: Bool?
  /// As the last transfers have shown it; bytes a second.
  public var linkBytesPerSecond: UInt64?
  public var power: Power?
  /// Whether the VM does next to nothing.
  public var isIdle: Bool?

  public init(
    isMetered: Bool? = nil, linkBytesPerSecond: UInt64? = nil, power: Power? = nil, isIdle: Bool? = nil
  ) {
    self.isMetered = isMetered
    self.linkBytesPerSecond = linkBytesPerSecond
    self.power = power
    self.isIdle = isIdle
  }
}
