import GuestMemory

public struct ClientCounters: Sendable {
  /// Pages asked for, each time.
  public var requests: UInt64 = 0
  public var retries: UInt64 = 0
  /// Pages that came without having been asked for by this host.
  public var eavesdropped: UInt64 = 0
  public var duplicates: UInt64 = 0
  public init() {}
}

public enum TransportMode: Sendable { case auto, unicast, multicast }

/// What a receiver asks for, and when it asks again. It ensures delivery: nobody else does.
public struct ClientMachine: Sendable {
  public enum Reception: Equatable, Sendable {
    /// Asked for at this urgency, or not at all.
    case new(PageRequest.Urgency?)
    case duplicate
  }

  /// How many pages may be under way ahead of need; what faults wait for always may.
  private static let outstandingMax = 512
  private static let pushOutstandingMax = 192
  private static let none = UInt32.max

  private struct Entry {
    var page: UInt32
    var urgency: PageRequest.Urgency
    /// 0: not asked yet.
    var attempts: Int
    var deadline: UInt64
  }

  public let pageCount: Int
  public private(set) var counters = ClientCounters()
  /// Nanoseconds for which nothing authentic was heard although something was asked for.
  public private(set) var silence: UInt64 = 0
  private let mode: TransportMode
  private var random: SplitMix
  private var isHere: PageBitmap
  private var entries: [Entry] = []
  /// Of a page: its entry.
  private var entryOf: [UInt32]
  private var waiting = PageQueue()
  private var roundTrip = RoundTrip()
  private var health = MulticastHealth()
  private var receiveRate = RateEstimate()
  private var retryShare = 0.0
  private var client: UInt32
  private var sequence: UInt32 = 0
  private var isPushing = false
  private var pushCursor = 0
  private var pushCount = 0
  private var pushCredit = 0.0
  private var pushRefill: UInt64 = 0
  private let pushBytesPerSecond: Double
  private var lastProbe: UInt64 = 0
  private var silentSince: UInt64 = 0

  /// `seed`: of the jitter and of the client's number.
  public init(
    pageCount: Int, mode: TransportMode = .auto, pushBytesPerSecond: Double = 32 * 1024 * 1024, seed: UInt64
  ) {
    self.pageCount = pageCount
    self.mode = mode
    self.pushBytesPerSecond = pushBytesPerSecond
    random = SplitMix(state: seed)
    client = UInt32(truncatingIfNeeded: random.next())
    isHere = PageBitmap(pageCount: pageCount)
    entryOf = Array(repeating: Self.none, count: pageCount)
    entries.reserveCapacity(1024)
  }

  public var number: UInt32 { client }
  public var isUnicast: Bool { mode == .unicast || (mode == .auto && health.reason != nil) }
  public var transportReason: String {
    mode == .unicast ? "unicast was asked for" : mode == .auto ? health.reason ?? "" : ""
  }

  // MARK: wanted

  /// Pages that need not come from the origin: zero, or here already.
  public mutating func markHere(_ pages: PageRange) {
    isHere.insert(contentsOf: pages)
    for page in pages where entryOf[page] != Self.none { remove(page) }
  }

  public func isHere(_ page: PageIndex) -> Bool { isHere.contains(page) }

  public mutating func demand(_ page: PageIndex) { want(page, .demand) }

  /// Ahead of need. What does not fit under way now waits its turn.
  public mutating func prefetch(_ pages: PageRange) {
    for page in pages where !isHere.contains(page) && entryOf[page] == Self.none {
      if entries.count < Self.outstandingMax {
        want(page, .prefetch)
      } else if waiting.count < pageCount {
        waiting.append(page)
      }
    }
  }

  public mutating func setPush(_ isOn: Bool) {
    isPushing = isOn
    pushCursor = 0
  }

  private mutating func want(_ page: PageIndex, _ urgency: PageRequest.Urgency) {
    guard !isHere.contains(page) else { return }
    let index = entryOf[page]
    if index == Self.none {
      entryOf[page] = UInt32(entries.count)
      entries.append(Entry(page: UInt32(page), urgency: urgency, attempts: 0, deadline: 0))
      if urgency == .push { pushCount += 1 }
    } else if urgency < entries[Int(index)].urgency {
      if entries[Int(index)].urgency == .push { pushCount -= 1 }
      entries[Int(index)].urgency = urgency
      // It may be on its way; if it waits behind others at the server, this brings it forward.
      entries[Int(index)].attempts = 0
      entries[Int(index)].deadline = 0
    }
  }

  private mutating func remove(_ page: PageIndex) {
    let index = Int(entryOf[page])
    if entries[index].urgency == .push { pushCount -= 1 }
    entryOf[page] = Self.none
    let last = entries.removeLast()
    guard index < entries.count else { return }
    entries[index] = last
    entryOf[Int(last.page)] = UInt32(index)
  }

  // MARK: received

  /// An authentic datagram of the origin. `echo`: this client's time in a request that it answers.
  public mutating func heard(
    bytes: Int, multicast: (instance: UInt64, counter: UInt64)?, echo: UInt64?, now: UInt64
  ) {
    silentSince = now
    silence = 0
    receiveRate.add(bytes, now: now)
    if let multicast { health.heard(instance: multicast.instance, counter: multicast.counter) }
    if let echo, echo != 0, echo <= now { roundTrip.add(now - echo) }
  }

  public mutating func received(_ page: PageIndex) -> Reception {
    if isHere.contains(page) {
      counters.duplicates += 1
      return .duplicate
    }
    isHere.insert(page)
    guard entryOf[page] != Self.none else {
      counters.eavesdropped += 1
      return .new(nil)
    }
    let urgency = entries[Int(entryOf[page])].urgency
    remove(page)
    return .new(urgency)
  }

  // MARK: asking

  /// What to ask for at `now`; nil: nothing before `nextDeadline`.
  public mutating func nextRequest(now: UInt64) -> PageRequest? {
    fill(now)
    var request = PageRequest(client: client)
    var timedOut = false
    if !entries.contains(where: { $0.attempts > 0 }) { silentSince = now }
    for index in entries.indices where entries[index].deadline <= now {
      let entry = entries[index]
      guard append(entry, to: &request) else { break }
      counters.requests += 1
      if entry.attempts > 0 {
        counters.retries += 1
        timedOut = true
      }
      retryShare += 0.01 * ((entry.attempts > 0 ? 1 : 0) - retryShare)
      let timeout = roundTrip.timeout(attempts: entry.attempts, isHeard: now - silentSince < 500_000_000)
      entries[index].attempts += 1
      entries[index].deadline = now + timeout + random.next() % (timeout / 8)
    }
    if timedOut, !isUnicast, mode == .auto { health.timedOut() }
    guard !request.runs.isEmpty else { return nil }
    silence = now - silentSince
    receiveRate.advance(now)
    sequence &+= 1
    request.sequence = sequence
    request.receiveRate = UInt32(min(receiveRate.bytesPerSecond, Double(UInt32.max)))
    request.multicastLoss = UInt32((isUnicast ? retryShare : health.loss) * 1000)
    request.wantsUnicast = isUnicast
    request.clientTime = now
    if isUnicast, mode == .auto, now - lastProbe >= MulticastHealth.probeInterval {
      lastProbe = now
      request.probesMulticast = true
    }
    return request
  }

  /// Neighbours of one kind go as one run. False: the request is full.
  private func append(_ entry: Entry, to request: inout PageRequest) -> Bool {
    let isRetry = entry.attempts > 0
    if let last = request.runs.last, last.urgency == entry.urgency, last.isRetry == isRetry,
      last.first + UInt32(last.count) == entry.page, Int(last.count) < PageRequest.runPagesMax
    {
      request.runs[request.runs.count - 1].count += 1
      return true
    }
    guard request.runs.count < PageRequest.runsMax else { return false }
    request.runs.append(.init(first: entry.page, count: 1, urgency: entry.urgency, isRetry: isRetry))
    return true
  }

  /// Takes up what waits, and, when nothing urgent is under way, what the push is to bring.
  private mutating func fill(_ now: UInt64) {
    while entries.count < Self.outstandingMax, let page = waiting.popFirst() { want(page, .prefetch) }
    guard isPushing else { return }
    if pushRefill == 0 { pushRefill = now }
    pushCredit = min(
      pushCredit + Double(now - pushRefill) * pushBytesPerSecond / 1e9,
      Double(Self.pushOutstandingMax * Page.bytes))
    pushRefill = now
    while pushCursor < pageCount, pushCount < Self.pushOutstandingMax, pushCredit > 0 {
      if !isHere.contains(pushCursor), entryOf[pushCursor] == Self.none {
        want(pushCursor, .push)
        pushCredit -= Double(Page.bytes)
      }
      pushCursor += 1
    }
  }

  /// When to call `nextRequest` again; nil: when something is wanted.
  public func nextDeadline(now: UInt64) -> UInt64? {
    var next = UInt64.max
    for entry in entries where entry.deadline < next { next = entry.deadline }
    if isPushing, pushCursor < pageCount, pushCount < Self.pushOutstandingMax {
      next = min(next, now + 2_000_000)
    }
    return next == UInt64.max ? nil : next
  }

  public var hasOutstanding: Bool { !entries.isEmpty || !waiting.isEmpty }
}

/// SplitMix64 (Steele, Lea and Flood 2014): small, seeded, good enough for jitter.
struct SplitMix: Sendable {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}
