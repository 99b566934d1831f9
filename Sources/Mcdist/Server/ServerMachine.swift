import GuestMemory

/// The server's behaviour without its sockets: which page goes out next, to whom, and when. Pure: time is passed in
/// (nanoseconds, monotonic). Its memory is bounded by the number of pages and of clients, whatever clients send.
public struct ServerMachine: Sendable {
  private let pageCount: Int
  let configuration: ServerConfiguration
  private var multicast: MulticastQueue
  var clients: [UInt32: ServerClient] = [:]
  /// How many of them ask for unicast because multicast loses much.
  var lossyClients = 0
  /// Clients with pages by unicast, each in turn.
  private var turns = Ring<UInt32>()
  private var isInTurns: Set<UInt32> = []
  /// Pages that the provider had not yet, in order of time.
  private var postponed = Ring<(transmission: Transmission, due: UInt64)>()
  var limit: RateLimit
  private var window: UInt64
  /// Microseconds, of all clients; weighted average.
  private var roundTrip = 0.0
  /// Pages asked for again, of those sent; weighted average.
  private var lossRatio = 0.0
  private var sentInPeriod = 0
  private var retriedInPeriod = 0
  private var periodStart: UInt64 = 0
  private var parities = 0
  private var paritiesAt: UInt64 = 0
  private var isMulticastTurn = true
  private var workingSet: [PageRange]
  private var warmWorkingSet: [PageRange]?
  public private(set) var counters = ServerMachineCounters()

  public init(pageCount: Int, configuration: ServerConfiguration = ServerConfiguration()) {
    self.pageCount = pageCount
    self.configuration = configuration
    multicast = MulticastQueue(pageCount: pageCount)
    limit = RateLimit(configuration)
    window = configuration.lockstepWindow
    workingSet = configuration.workingSet
    warmWorkingSet = configuration.warmWorkingSet
  }

  public var rateLimitBytesPerSecond: Double { limit.bytesPerSecond }

  /// These are sent to each new client first, from now on; `warm` to those of hosts with a standby, nil: all.
  public mutating func offer(_ runs: [PageRange], warm: [PageRange]?) {
    (workingSet, warmWorkingSet) = (runs, warm)
  }

  public mutating func receive(_ request: PageRequest, now: UInt64) {
    let isNew = clients[request.client] == nil
    if isNew { makeRoom() }
    let unasked = request.isWarm ? warmWorkingSet ?? workingSet : workingSet
    var client =
      clients.removeValue(forKey: request.client)
      ?? ServerClient(
        id: request.client, expected: unasked.reduce(0) { $0 + $1.count }, now: now)
    client.heardAt = now
    client.receiveRate = request.receiveRate
    client.loss = request.loss
    decideTransport(&client, request)
    if request.roundTrip > 0 {
      let sample = Double(min(request.roundTrip, 1_000_000))
      roundTrip = roundTrip == 0 ? sample : roundTrip * 7 / 8 + sample / 8
      window = min(
        max(configuration.lockstepWindow, UInt64(roundTrip * 1000)), configuration.lockstepWindowMax)
    }
    var lost = 0
    for run in request.runs {
      let first = Int(run.first)
      guard first < pageCount else { continue }
      for page in first..<min(first + Int(run.count), pageCount) {
        counters.requests += 1
        let isLost = want(page, run, client: &client, position: request.position, now: now)
        if run.isRetry && isLost { lost += 1 }
      }
    }
    if isNew { greet(&client, with: unasked, now: now) }
    clients[request.client] = client
    if lost > 0 {
      retriedInPeriod += lost
      limit.showsLoss(
        delivered: delivered(now: now), lossRatio: lossRatio, reported: reportedLoss(now: now), now: now)
    }
  }

  /// The next page to send at `now`, most urgent first; nil: nothing before `nextDeadline`.
  public mutating func next(now: UInt64) -> Transmission? {
    requeue(now)
    for urgency in [PageRequest.Urgency.demand, .prefetch, .push] {
      guard multicast.count(urgency) > 0 || hasUnicast(urgency) else { continue }
      guard limit.maySend(urgency, now: now) else { return nil }
      isMulticastTurn.toggle()
      if isMulticastTurn, let found = nextMulticast(urgency, now: now) { return found }
      if let found = nextUnicast(urgency, now: now) { return found }
      if let found = nextMulticast(urgency, now: now) { return found }
    }
    return nil
  }

  /// How many parities each block of datagrams by multicast needs so that who loses most can mostly do without asking
  /// again. Who loses more than a fifth is not believed to be helped by more traffic.
  public mutating func paritiesPerBlock(now: UInt64) -> Int {
    guard now >= paritiesAt + 20_000_000 else { return parities }
    paritiesAt = now
    var (most, count) = (UInt16(0), 0)
    for client in clients.values where !client.wantsUnicast && client.isActive(now) {
      count += 1
      if client.loss < .max / 5 { most = max(most, client.loss) }
    }
    let lost = Double(most) / 65536 * Double(ErasureCode.blockSize)
    // A block in which one of a thousand datagrams is lost is left to retries.
    parities = lost < 0.06 ? 0 : Int((lost + (count > 1 ? 3 : 2) * lost.squareRoot()).rounded(.up))
    parities = min(parities, ErasureCode.paritiesMax)
    return parities
  }

  /// A page went out by multicast, its last part in the datagram with this counter.
  public mutating func sent(_ page: PageIndex, in counter: UInt64) {
    multicast.sent(page, in: UInt32(truncatingIfNeeded: counter))
  }

  /// What the last pages cost on the wire.
  public mutating func sent(bytes: Int, pages: Int, now: UInt64) {
    limit.sent(bytes, now: now)
    counters.served += UInt64(pages)
    sentInPeriod += pages
    if now >= periodStart + 100_000_000 {
      let ratio = sentInPeriod > 0 ? min(1, Double(retriedInPeriod) / Double(sentInPeriod)) : 0
      lossRatio = lossRatio * 3 / 4 + ratio / 4 / Double(max(1, clients.count))
      (sentInPeriod, retriedInPeriod, periodStart) = (0, 0, now)
    }
  }

  /// The provider has not got it yet: it comes again in 2 ms.
  public mutating func postpone(_ transmission: Transmission, now: UInt64) {
    // Beyond this the clients' own retries bring it back.
    if postponed.count < 4096 { postponed.append((transmission, now + 2_000_000)) }
  }

  /// When `next` may have something; nil: only after `receive`.
  public mutating func nextDeadline(now: UInt64) -> UInt64? {
    var deadline = postponed.first?.due
    for urgency in [PageRequest.Urgency.demand, .prefetch, .push]
    where multicast.count(urgency) > 0 || hasUnicast(urgency) {
      let refilled = limit.refilled(urgency, now: now)
      deadline = min(deadline ?? refilled, refilled)
      break
    }
    return deadline
  }

  // MARK: -

  /// True: it had been sent there longer ago than a round trip.
  private mutating func want(
    _ page: PageIndex, _ run: PageRequest.Run, client: inout ServerClient, position: UInt32, now: UInt64
  ) -> Bool {
    let urgency = run.urgency
    if client.wantsUnicast {
      let answer = client.insert(page, urgency, window: window, max: configuration.queuedMax, now: now)
      switch answer {
      case .queued: takeTurn(client.id)
      case .suppressed: counters.lockstepSuppressed += 1
      case .full: break
      }
      return answer == .queued
    }
    if multicast.isWanted(page) {
      counters.lockstepSuppressed += 1
      multicast.insert(page, urgency, run.parts)
      return false
    }
    // A receiver's buffer may hold more than a round trip's worth.
    let isOnItsWay =
      urgency != .demand && multicast.isOnItsWay(page, position: position)
      && multicast.wasSent(page, within: configuration.onItsWayMax, now: now)
    var parts = run.parts
    if isOnItsWay || multicast.wasSent(page, within: window, now: now) {
      parts = multicast.unsent(page, of: parts)
      if parts == 0 {
        counters.lockstepSuppressed += 1
        return false
      }
    }
    // What others have already is sent before what nobody has: a host holds the pieces of few pages.
    let isRepair = run.isRetry && multicast.wasSent(page)
    multicast.insert(page, isRepair ? .demand : urgency, parts)
    return multicast.wasSent(page)
  }

  /// The working set, but for what has just been sent: a new client is likely to have heard it.
  private mutating func greet(_ client: inout ServerClient, with unasked: [PageRange], now: UInt64) {
    for run in unasked {
      for page in run.clamped(to: 0..<pageCount) {
        if client.wantsUnicast {
          // All of it, though a client could not have so much queued by asking.
          if client.insert(page, .prefetch, window: window, max: .max, now: now) == .queued {
            takeTurn(client.id)
          }
        } else if !multicast.wasSent(page, within: 500_000_000, now: now) {
          multicast.insert(page, .prefetch)
        }
      }
    }
  }

  private mutating func nextMulticast(_ urgency: PageRequest.Urgency, now: UInt64) -> Transmission? {
    guard let page = multicast.pop(urgency) else { return nil }
    let isAgain = multicast.wasSent(page)
    if isAgain { counters.retransmitted += 1 }
    multicast.sent(page, now: now)
    return Transmission(
      page: page, to: .multicast, urgency: urgency, parts: multicast.poppedParts(page),
      isRetransmission: isAgain)
  }

  private func hasUnicast(_ urgency: PageRequest.Urgency) -> Bool {
    !turns.isEmpty && isInTurns.contains { clients[$0]?.hasPages(urgency) ?? false }
  }

  private mutating func nextUnicast(_ urgency: PageRequest.Urgency, now: UInt64) -> Transmission? {
    for _ in 0..<turns.count {
      guard let id = turns.popFirst() else { return nil }
      guard clients[id] != nil else {
        isInTurns.remove(id)
        continue
      }
      let page = clients[id]!.pop(urgency, now: now)
      let client = clients[id]!
      if client.hasPages {
        turns.append(id)
      } else {
        isInTurns.remove(id)
      }
      if let page {
        return Transmission(page: page, to: .unicast(client: id), urgency: urgency, isRetransmission: false)
      }
    }
    return nil
  }

  private mutating func takeTurn(_ id: UInt32) {
    if isInTurns.insert(id).inserted { turns.append(id) }
  }

  private mutating func requeue(_ now: UInt64) {
    while let first = postponed.first, first.due <= now {
      _ = postponed.popFirst()
      switch first.transmission.to {
      case .multicast:
        multicast.insert(first.transmission.page, first.transmission.urgency, first.transmission.parts)
      case .unicast(let id):
        guard clients[id] != nil else { continue }
        // Its sending did not happen, so nothing is suppressed.
        let answer = clients[id]!.insert(
          first.transmission.page, first.transmission.urgency, window: 0, max: configuration.queuedMax,
          now: now)
        if answer == .queued { takeTurn(id) }
      }
    }
  }
}
