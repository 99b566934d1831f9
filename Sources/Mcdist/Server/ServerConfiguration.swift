import GuestMemory

/// Figures of a server's behaviour. Bytes a second, nanoseconds.
public struct ServerConfiguration: Sendable {
  public var initialRate: Double = 64e6
  public var floorRate: Double = 2e6
  public var ceilingRate: Double = 4e9
  /// Added each tick of 10 ms in which the limit was used.
  public var growthPerTick: Double = 1e6
  /// Identical requests so close to a sending are answered by it.
  public var lockstepWindow: UInt64 = 2_000_000
  public var lockstepWindowMax: UInt64 = 100_000_000
  /// A client that has not seen what was sent after a page may have it in its buffer for so long.
  public var onItsWayMax: UInt64 = 500_000_000
  public var clientsMax = 4096
  /// Of one client by unicast.
  public var queuedMax = 4096
  public var transport = TransportMode.auto
  /// Sent to each new client first.
  public var workingSet: [PageRange] = []
  /// The part of it for a client that is warm; nil: it is not known what that one has, and it is sent all.
  public var warmWorkingSet: [PageRange]?

  public init() {}
}

public struct ServerMachineCounters: Sendable, Equatable {
  /// Pages asked for, one for each page and client.
  public var requests: UInt64 = 0
  public var served: UInt64 = 0
  public var lockstepSuppressed: UInt64 = 0
  public var retransmitted: UInt64 = 0
  public init() {}
}

/// A page to be sent.
public struct Transmission: Equatable, Sendable {
  public enum Destination: Hashable, Sendable {
    case multicast
    case unicast(client: UInt32)
  }
  public var page: PageIndex
  public var to: Destination
  public var urgency: PageRequest.Urgency
  /// Which pieces of it.
  public var parts: UInt16 = PageParts.all
  /// The page has been sent there before.
  public var isRetransmission: Bool
}
