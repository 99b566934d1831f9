/// Figures of a client's behaviour. Bytes a second, nanoseconds, pages.
public struct ClientConfiguration: Sendable {
  public var transport = TransportMode.auto
  /// As in its requests.
  public var isWarm = false
  public var retryMin: UInt64 = 2_000_000
  public var retryMax: UInt64 = 1_000_000_000
  /// Until a round trip has been measured.
  public var retryInitial: UInt64 = 20_000_000
  /// Asked for ahead of need and not come yet, at most.
  public var prefetchOutstandingMax = 1024
  public var pushOutstandingMax = 256
  public var pushRate: Double = 32e6
  /// Nothing heard for so long with pages outstanding: the origin is gone.
  public var silence: UInt64 = 15_000_000_000
  /// How often a client by unicast tries multicast.
  public var probe: UInt64 = 5_000_000_000

  public init() {}
}

public struct ClientMachineCounters: Sendable, Equatable {
  /// Pages asked for, and again.
  public var requests: UInt64 = 0
  public var retries: UInt64 = 0
  /// New pages that another host had asked for.
  public var eavesdropped: UInt64 = 0
  public var duplicates: UInt64 = 0
  public init() {}
}

/// What a page that came is to this client.
public enum Reception: Equatable, Sendable {
  case new(Arrival)
  case duplicate
}
