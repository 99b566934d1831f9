/// Pieces of a page's bytes as they travel, a bit for each 256.
public enum PageParts {
  public static let all = UInt16.max
  static let bytes = 256
}

/// What a client asks of the server.
public struct PageRequest: Equatable, Sendable {
  public enum Urgency: UInt8, Sendable, Comparable {
    case demand = 0
    case prefetch = 1
    case push = 2
    public static func < (left: Self, right: Self) -> Bool { left.rawValue < right.rawValue }
  }

  /// Consecutive pages.
  public struct Run: Equatable, Sendable {
    public var first: UInt32
    public var count: UInt16
    public var urgency: Urgency
    /// Asked for before, and not come in time.
    public var isRetry: Bool
    /// Of a retry of one page: which pieces of its bytes as they travel lack, bit 0 the first 256 bytes.
    public var parts: UInt16

    public init(
      first: UInt32, count: UInt16, urgency: Urgency, isRetry: Bool = false, parts: UInt16 = PageParts.all
    ) {
      self.first = first
      self.count = count
      self.urgency = urgency
      self.isRetry = isRetry
      self.parts = parts
    }
  }

  /// What fits a request.
  public static let runsMax = 64

  /// Random, of one run of a receiver; never 0.
  public var client: UInt32
  public var sequence: UInt32
  /// Bytes a second, weighted average over ticks of 10 ms; 0: not known yet.
  public var receiveRate: UInt32
  /// From a request to its page, as the client has measured; microseconds, 0: not known yet.
  public var roundTrip: UInt32
  /// The highest counter of the server's multicast datagrams that this client has seen, its low 32 bits; 0: none.
  public var position: UInt32
  /// Of the server's multicast datagrams those that did not come lately, of 65,536.
  public var loss: UInt16
  /// This client wants its pages by unicast.
  public var wantsUnicast: Bool
  /// A standby of the origin is on the client's host: of what is sent unasked it lacks only what was written since.
  public var isWarm: Bool
  /// The client's clock, given back by the server: any unit of the client's.
  public var clientTime: UInt64
  public var runs: [Run]

  public init(
    client: UInt32, sequence: UInt32, receiveRate: UInt32, roundTrip: UInt32, position: UInt32 = 0,
    loss: UInt16 = 0,
    wantsUnicast: Bool, isWarm: Bool = false, clientTime: UInt64, runs: [Run]
  ) {
    self.client = client
    self.sequence = sequence
    self.receiveRate = receiveRate
    self.roundTrip = roundTrip
    self.position = position
    self.loss = loss
    self.wantsUnicast = wantsUnicast
    self.isWarm = isWarm
    self.clientTime = clientTime
    self.runs = runs
  }
}
