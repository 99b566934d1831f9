import GuestMemory

/// The client's behaviour without its sockets: what to ask for, when to ask again, by which way. Pure: time is passed
/// in (nanoseconds, monotonic), chance comes from the seed.
public struct ClientMachine: Sendable {
  enum State: UInt8, Sendable {
    case missing = 0
    case present = 1
    /// Asked for, or about to be, with this urgency.
    case demanded = 2
    case prefetched = 3
    case pushed = 4
  }
  struct Outstanding: Sendable {
    var page: UInt32
    /// Microseconds, the low 32 bits: as in `stamps` as long as this is the page's newest request.
    var stamp: UInt32
    var sentAt: UInt64
  }

  let pageCount: Int
  let configuration: ClientConfiguration
  let client: UInt32
  var states: [State]
  var stamps: [UInt32]
  var levels: [UInt8]
  var demands = Ring<UInt32>()
  /// What did not come in time and is to be asked for again.
  var demandRetries = Ring<UInt32>()
  var bulkRetries = Ring<UInt32>()
  var prefetches = Ring<PageRange>()
  /// Requests without an answer, oldest first: of demanded pages by level, then of others by level.
  var waiting: [Ring<Outstanding>]
  static let levels = 11
  var outstandingDemands = 0
  var outstandingPrefetches = 0
  var outstandingPushes = 0
  var window: RequestWindow
  var demandTime = RoundTrip()
  /// From a request to the first datagram after it, by the server's echo: without the time that pages are queued.
  var echoTime = RoundTrip()
  /// When the newest request was made of which a page came, and the last such page; not demands.
  var bulkAnswered: UInt64 = 0
  var bulkAnsweredPage: PageIndex = 0
  /// The same of the last two blocks by multicast: what was lost of them may still be repaired.
  var answered = BlockAnswers()
  var received = RateEstimate()
  var choice: TransportChoice
  var isPushing = false
  var pushCursor = 0
  var pushTokens = 0.0
  var pushFilledAt: UInt64?
  var missingCount: Int
  var sequence: UInt32 = 0
  var heardAt: UInt64 = 0
  var waitingSince: UInt64?
  var random: SplitMix
  public internal(set) var counters = ClientMachineCounters()

  public init(pageCount: Int, configuration: ClientConfiguration = ClientConfiguration(), seed: UInt64) {
    self.pageCount = pageCount
    self.configuration = configuration
    random = SplitMix(state: seed)
    client = max(1, UInt32(truncatingIfNeeded: random.next()))
    states = Array(repeating: .missing, count: pageCount)
    stamps = Array(repeating: 0, count: pageCount)
    levels = Array(repeating: 0, count: pageCount)
    waiting = Array(repeating: Ring(), count: 2 * Self.levels)
    choice = TransportChoice(configuration)
    window = RequestWindow(max: configuration.prefetchOutstandingMax)
    missingCount = pageCount
  }

  public var clientIdentifier: UInt32 { client }
  public var isUnicast: Bool { choice.isUnicast }
  public var transportReason: String { choice.reason }
  public var hasOutstanding: Bool { outstandingDemands + outstandingPrefetches + outstandingPushes > 0 }
  public func isPresent(_ page: PageIndex) -> Bool { states[page] == .present }
  /// Whether a fault here waits for it.
  public func isDemanded(_ page: PageIndex) -> Bool { states[page] == .demanded }

  /// A fault waits for these: the next request has them first.
  public mutating func demand(_ pages: PageRange, now: UInt64) {
    for page in pages.clamped(to: 0..<pageCount) {
      switch states[page] {
      case .present, .demanded: continue
      case .missing: break
      case .prefetched: outstandingPrefetches -= 1
      case .pushed: outstandingPushes -= 1
      }
      if stamps[page] != 0 { window.forgotten() }
      stamps[page] = 0
      states[page] = .demanded
      outstandingDemands += 1
      levels[page] = 0
      demands.append(UInt32(page))
    }
  }

  /// Ahead of need: asked for as the window of outstanding pages allows.
  public mutating func prefetch(_ pages: PageRange, now: UInt64) {
    let pages = pages.clamped(to: 0..<pageCount)
    if !pages.isEmpty && prefetches.count < 65_536 { prefetches.append(pages) }
  }

  public mutating func setPush(_ isOn: Bool) {
    isPushing = isOn
    pushCursor = 0
  }

  /// These are here, by whatever way: never asked for (again).
  public mutating func markPresent(_ pages: PageRange) {
    for page in pages.clamped(to: 0..<pageCount) { settle(page) }
  }

  /// A whole page came.
  public mutating func received(_ page: PageIndex, now: UInt64) -> Reception {
    let state = states[page]
    if state == .present {
      counters.duplicates += 1
      return .duplicate
    }
    if state != .missing && stamps[page] != 0 {
      let time = UInt64(UInt32(truncatingIfNeeded: now / 1000) &- stamps[page]) * 1000
      if state != .demanded && levels[page] == 0 {
        let asked = now > time ? now - time : 0
        if choice.isUnicast { settled((asked, page)) } else { answered.add((asked, page)) }
      } else if levels[page] == 0 {
        demandTime.sample(nanoseconds: time)
      }
    }
    settle(page)
    switch state {
    case .demanded: return .new(.demanded)
    case .pushed: return .new(.pushed)
    case .prefetched: return .new(.prefetched)
    case .missing, .present:
      counters.eavesdropped += 1
      return .new(.prefetched)
    }
  }

  /// Part of a page that is here came.
  mutating func countDuplicate() { counters.duplicates += 1 }

  /// An authentic datagram of the server came; `multicast`: its instance and counter, if by multicast.
  public mutating func heard(bytes: Int, multicast: (instance: UInt64, counter: UInt64)?, now: UInt64) {
    heardAt = now
    waitingSince = hasOutstanding ? now : nil
    received.add(bytes, now: now)
    if let multicast {
      settled(answered.turn(multicast))
      choice.heardMulticast(instance: multicast.instance, counter: multicast.counter, now: now)
    }
  }

  /// The server gave back the time that a request of this client bore.
  public mutating func heardEcho(of time: UInt64, now: UInt64) {
    if time < now { echoTime.sample(nanoseconds: now - time) }
  }

  /// Pages outstanding and nothing heard for the configured time.
  public func isOriginSilent(now: UInt64) -> Bool {
    guard hasOutstanding, let waitingSince else { return false }
    return now >= max(waitingSince, heardAt) + configuration.silence
  }

  private mutating func settled(_ answer: (asked: UInt64, page: PageIndex)) {
    if answer > (bulkAnswered, bulkAnsweredPage) { (bulkAnswered, bulkAnsweredPage) = answer }
  }

  private mutating func settle(_ page: PageIndex) {
    if stamps[page] != 0 && (states[page] == .prefetched || states[page] == .pushed) { window.arrived() }
    switch states[page] {
    case .present: return
    case .missing: break
    case .demanded: outstandingDemands -= 1
    case .prefetched: outstandingPrefetches -= 1
    case .pushed: outstandingPushes -= 1
    }
    states[page] = .present
    stamps[page] = 0
    missingCount -= 1
    if !hasOutstanding { waitingSince = nil }
  }
}

/// When the newest request was made that was answered in a block of the server's multicast datagrams, and in the one
/// before.
struct BlockAnswers: Sendable {
  private var instance: UInt64 = 0
  private var block: UInt64 = 0
  private var newest: (asked: UInt64, page: PageIndex) = (0, 0)
  private var previous: (asked: UInt64, page: PageIndex) = (0, 0)

  mutating func add(_ answer: (asked: UInt64, page: PageIndex)) { if answer > newest { newest = answer } }

  /// A datagram came. What was answered in a block whose repair is over.
  mutating func turn(_ datagram: (instance: UInt64, counter: UInt64)) -> (asked: UInt64, page: PageIndex) {
    let now = datagram.counter / UInt64(ErasureCode.blockSize)
    guard now > block || datagram.instance != instance else { return (0, 0) }
    let isNext = now == block + 1 && datagram.instance == instance
    defer {
      (previous, newest) = (isNext ? newest : (0, 0), (0, 0))
      (instance, block) = (datagram.instance, now)
    }
    return isNext || previous > newest ? previous : newest
  }
}
