import GuestMemory

public struct ServerCounters: Sendable {
  /// Pages asked for, once for each page and request.
  public var requests: UInt64 = 0
  /// Pages sent.
  public var served: UInt64 = 0
  public var lockstepSuppressed: UInt64 = 0
  public var retransmitted: UInt64 = 0
  public init() {}
}

/// Which page to send next, to whom, and when: requests are answered first come, first served within their urgency.
///
/// Lockstep: a page that is queued, or was sent within `lockstepWindow`, is not sent again for another request; a
/// client that did not get it asks again, after its time-out, and is served then (SnowFlock, "Multicast Distribution").
/// No client can make the server hold more than a flag a page, and its own bounded unicast queue.
public struct ServerMachine: Sendable {
  public enum Destination: Equatable, Sendable {
    case group
    case client(UInt32)
  }
  public struct Transmission: Equatable, Sendable {
    public var page: PageIndex
    public var to: Destination
    public var urgency: PageRequest.Urgency
  }

  static let lockstepWindow: UInt64 = 3_000_000
  private static let unicastQueueMax = 4096
  private static let clientsMax = 4096
  private static let forgetAfter: UInt64 = 2_000_000_000

  private struct Client {
    var lastHeard: UInt64
    var receiveRate: UInt32
    var loss: UInt32
    var queues: [PageQueue]
    var isQueued: Bool { queues.contains { !$0.isEmpty } }
  }

  public let pageCount: Int
  public private(set) var counters = ServerCounters()
  public private(set) var limit = RateLimit()
  /// Pages that each new client will need first.
  public var workingSet: [PageRange] = []
  /// Only what was asked for by unicast is sent by unicast, in this mode to everybody.
  private let unicastOnly: Bool
  /// Nanoseconds; 0: never.
  private var lastSent: [UInt64]
  /// 0: not queued; else its urgency + 1.
  private var queued: [UInt8]
  private var group: [PageQueue]
  private var clients: [UInt32: Client] = [:]
  /// Those with something queued, in turn.
  private var unicastTurn: [UInt32] = []
  private var nextTurn = 0

  public init(pageCount: Int, unicastOnly: Bool = false) {
    self.pageCount = pageCount
    self.unicastOnly = unicastOnly
    lastSent = Array(repeating: 0, count: pageCount)
    queued = Array(repeating: 0, count: pageCount)
    group = (0..<3).map { _ in PageQueue() }
  }

  // MARK: asked

  public mutating func receive(_ request: PageRequest, now: UInt64) {
    guard let isNew = note(request, now) else { return }
    let byUnicast = unicastOnly || request.wantsUnicast
    var lost = false
    for run in request.runs {
      for page in Int(run.first)..<min(Int(run.first) + Int(run.count), pageCount) {
        counters.requests += 1
        if byUnicast {
          if run.isRetry { lost = true }
          want(page, run.urgency, of: request.client, isRetry: run.isRetry)
        } else {
          if run.isRetry, lastSent[page] != 0 { lost = true }
          want(page, run.urgency, now)
        }
      }
    }
    if lost { noteLoss(now) }
    if isNew {
      for range in workingSet {
        for page in range where page < pageCount {
          if byUnicast {
            want(page, .prefetch, of: request.client, isRetry: false)
          } else if lastSent[page] == 0 {
            want(page, .prefetch, now)
          }
        }
      }
    }
  }

  /// Whether the client is a new one. Nil: there are too many.
  private mutating func note(_ request: PageRequest, _ now: UInt64) -> Bool? {
    if clients[request.client] != nil {
      clients[request.client]!.lastHeard = now
      clients[request.client]!.receiveRate = request.receiveRate
      clients[request.client]!.loss = request.multicastLoss
      return false
    }
    if clients.count >= Self.clientsMax {
      clients = clients.filter { now - $0.value.lastHeard < Self.forgetAfter }
      unicastTurn.removeAll { clients[$0] == nil }
      guard clients.count < Self.clientsMax else { return nil }
    }
    clients[request.client] = Client(
      lastHeard: now, receiveRate: request.receiveRate, loss: request.multicastLoss,
      queues: (0..<3).map { _ in PageQueue() })
    return true
  }

  private mutating func want(_ page: PageIndex, _ urgency: PageRequest.Urgency, _ now: UInt64) {
    if queued[page] != 0 {
      counters.lockstepSuppressed += 1
      guard urgency.rawValue + 1 < queued[page] else { return }
    } else if lastSent[page] != 0 {
      guard now - lastSent[page] >= Self.lockstepWindow else {
        counters.lockstepSuppressed += 1
        return
      }
      counters.retransmitted += 1
    }
    // A page asked for again and again, each time more urgently, leaves entries behind.
    guard group[Int(urgency.rawValue)].count < 2 * pageCount else { return }
    queued[page] = urgency.rawValue + 1
    group[Int(urgency.rawValue)].append(page)
  }

  private mutating func want(
    _ page: PageIndex, _ urgency: PageRequest.Urgency, of client: UInt32, isRetry: Bool
  ) {
    guard clients[client]!.queues[Int(urgency.rawValue)].count < Self.unicastQueueMax else { return }
    if isRetry { counters.retransmitted += 1 }
    if !clients[client]!.isQueued { unicastTurn.append(client) }
    clients[client]!.queues[Int(urgency.rawValue)].append(page)
  }

  /// The mean over the clients that were heard lately; a client can neither stop the sender nor drive it by what it
  /// says of itself: each counts as one, between the floor and what was sent.
  private mutating func noteLoss(_ now: UInt64) {
    var receive = 0.0
    var loss = 0.0
    var count = 0.0
    let sent = max(limit.sendRate.bytesPerSecond, RateLimit.floor)
    for client in clients.values where now - client.lastHeard < Self.forgetAfter && client.receiveRate > 0 {
      receive += min(max(Double(client.receiveRate), RateLimit.floor), sent)
      loss += Double(client.loss) / 1000
      count += 1
    }
    guard count > 0 else { return }
    // By unicast what is sent is the sum of what all receive.
    limit.loss(meanReceive: unicastOnly ? receive : receive / count, meanLoss: loss / count, now: now)
  }

  // MARK: answered

  /// The next page to send at `now`. Nil: none before `nextDeadline`.
  public mutating func next(now: UInt64) -> Transmission? {
    limit.refill(now: now)
    for urgency in 0..<3 {
      guard urgency == 0 ? limit.mayDemand : limit.mayFill else { return nil }
      while let page = group[urgency].popFirst() {
        guard queued[page] == UInt8(urgency + 1) else { continue }  // asked for more urgently, and sent
        queued[page] = 0
        lastSent[page] = max(now, 1)
        counters.served += 1
        return Transmission(page: page, to: .group, urgency: .init(rawValue: UInt8(urgency))!)
      }
      if let found = nextUnicast(urgency) {
        counters.served += 1
        return found
      }
    }
    return nil
  }

  private mutating func nextUnicast(_ urgency: Int) -> Transmission? {
    for _ in 0..<unicastTurn.count {
      if nextTurn >= unicastTurn.count { nextTurn = 0 }
      let id = unicastTurn[nextTurn]
      guard let page = clients[id]?.queues[urgency].popFirst() else {
        nextTurn += 1
        continue
      }
      if clients[id]!.isQueued { nextTurn += 1 } else { unicastTurn.remove(at: nextTurn) }
      return Transmission(
        page: page, to: .client(id), urgency: .init(rawValue: UInt8(urgency))!)
    }
    return nil
  }

  /// What the last transmissions came to, on the wire.
  public mutating func sent(bytes: Int, now: UInt64) { limit.charge(bytes, now: now) }

  /// The page could not be had yet: as if it had not been asked for; clients ask again.
  public mutating func withdraw(_ transmission: Transmission) {
    counters.served -= 1
    if transmission.to == .group { lastSent[transmission.page] = 0 }
  }

  public var hasQueued: Bool { !unicastTurn.isEmpty || group.contains { !$0.isEmpty } }

  /// When `next` may have something again; nil: not before a request comes.
  public func nextDeadline(now: UInt64) -> UInt64? { hasQueued ? limit.ready(now: now) : nil }
}

/// A queue of page numbers that grows by doubling and is then reused.
struct PageQueue: Sendable {
  private var ring = [UInt32](repeating: 0, count: 64)
  private var first = 0
  private(set) var count = 0
  var isEmpty: Bool { count == 0 }

  mutating func append(_ page: PageIndex) {
    if count == ring.count { grow() }
    ring[(first + count) & (ring.count - 1)] = UInt32(page)
    count += 1
  }

  mutating func popFirst() -> PageIndex? {
    guard count > 0 else { return nil }
    defer {
      first = (first + 1) & (ring.count - 1)
      count -= 1
    }
    return Int(ring[first])
  }

  private mutating func grow() {
    var larger = [UInt32](repeating: 0, count: ring.count * 2)
    for index in 0..<count { larger[index] = ring[(first + index) & (ring.count - 1)] }
    ring = larger
    first = 0
  }
}
