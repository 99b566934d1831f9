/// How many pages, but for demands, are asked for and not answered: as many as this host's own way from the server bears.
/// Half when more than a tenth of them are lost by unicast, or three tenths of all datagrams by multicast, where the
/// server's limit is there for all receivers; growing else.
struct RequestWindow: Sendable {
  static let least = 16
  private let max: Int
  private var size: Int
  private var inFlight = 0
  private var came = 0
  private var missed = 0
  private var turnedAt: UInt64 = 0

  init(max: Int) {
    self.max = max
    size = max
  }

  var hasRoom: Bool { inFlight < size }
  /// So few are left that none can be far behind in the server's queue.
  var isNearlyDone: Bool { inFlight <= 64 }

  mutating func asked() { inFlight += 1 }
  /// It is a demand now.
  mutating func forgotten() { inFlight -= 1 }

  mutating func arrived() {
    inFlight -= 1
    came += 1
  }

  mutating func lost() {
    inFlight -= 1
    missed += 1
  }

  /// Draws the conclusion of what came and was lost since the last turn, two round trips ago.
  mutating func turn(_ choice: inout TransportChoice, _ time: RoundTrip, now: UInt64) {
    guard now >= turnedAt + Swift.max(20_000_000, UInt64(2 * time.smoothed)), came + missed >= 8 else {
      return
    }
    let recent = choice.takeRecent()
    let isTooMuch =
      choice.isUnicast
      ? missed * 10 > came + missed : recent.sent >= 64 && recent.came * 10 < recent.sent * 7
    size = isTooMuch ? Swift.max(Self.least, size / 2) : min(max, size + Swift.max(8, size / 8))
    (came, missed, turnedAt) = (0, 0, now)
  }
}
