import GuestMemory

/// The pages wanted by multicast: each at most once, whoever asked. Memory is bounded by the number of pages.
struct MulticastQueue: Sendable {
  /// Of a page: bits 0…2: it has an entry in the queue of that urgency; bits 4 and 5: the urgency it is wanted with, plus
  /// one; 0: not wanted, and entries are left over.
  private var marks: [UInt8]
  /// When a page was last sent: units of 2^16 ns, plus one; 0: never. Comes round after 78 hours: one more suppression.
  private var sentAt: [UInt32]
  /// The counter of the last datagram with a part of it; low 32 bits.
  private var sentIn: [UInt32]
  /// The pieces that are wanted, if any is, and those that were sent last.
  private var parts: [UInt16]
  private var sentParts: [UInt16]
  private var queues = (Ring<UInt32>(), Ring<UInt32>(), Ring<UInt32>())
  private var wanted = [0, 0, 0]

  init(pageCount: Int) {
    marks = Array(repeating: 0, count: pageCount)
    sentAt = Array(repeating: 0, count: pageCount)
    sentIn = Array(repeating: 0, count: pageCount)
    parts = Array(repeating: 0, count: pageCount)
    sentParts = Array(repeating: 0, count: pageCount)
  }

  func isWanted(_ page: PageIndex) -> Bool { marks[page] >> 4 != 0 }
  func wasSent(_ page: PageIndex) -> Bool { sentAt[page] != 0 }
  func count(_ urgency: PageRequest.Urgency) -> Int { wanted[Int(urgency.rawValue)] }

  /// Sent less than `window` ns ago.
  func wasSent(_ page: PageIndex, within window: UInt64, now: UInt64) -> Bool {
    sentAt[page] != 0 && UInt64(Self.tick(now) &- sentAt[page]) << 16 < window
  }

  /// It is still on its way to a client that has seen the datagrams up to `position`.
  func isOnItsWay(_ page: PageIndex, position: UInt32) -> Bool {
    position != 0 && Int32(bitPattern: sentIn[page] &- position) > 0
  }

  /// Of those, what has not been sent the last time.
  func unsent(_ page: PageIndex, of wanted: UInt16) -> UInt16 { wanted & ~sentParts[page] }
  /// What `pop` gave out.
  func poppedParts(_ page: PageIndex) -> UInt16 { sentParts[page] }

  mutating func sent(_ page: PageIndex, in counter: UInt32) { sentIn[page] = counter }

  /// Wants the page, or wants it more urgently.
  mutating func insert(
    _ page: PageIndex, _ urgency: PageRequest.Urgency, _ wantedParts: UInt16 = PageParts.all
  ) {
    let mark = marks[page]
    parts[page] = mark >> 4 != 0 ? parts[page] | wantedParts : wantedParts
    let level = urgency.rawValue
    if mark >> 4 != 0 {
      guard level + 1 < mark >> 4 else { return }
      wanted[Int(mark >> 4) - 1] -= 1
    }
    wanted[Int(level)] += 1
    marks[page] = mark & 7 | 1 << level | (level + 1) << 4
    guard mark & 1 << level == 0 else { return }
    switch urgency {
    case .demand: queues.0.append(UInt32(page))
    case .prefetch: queues.1.append(UInt32(page))
    case .push: queues.2.append(UInt32(page))
    }
  }

  /// The next page of that urgency, taken out.
  mutating func pop(_ urgency: PageRequest.Urgency) -> PageIndex? {
    let level = urgency.rawValue
    while wanted[Int(level)] > 0 {
      let next: UInt32?
      switch urgency {
      case .demand: next = queues.0.popFirst()
      case .prefetch: next = queues.1.popFirst()
      case .push: next = queues.2.popFirst()
      }
      guard let next else { return nil }
      let page = Int(next)
      marks[page] &= ~(1 << level)
      guard marks[page] >> 4 == level + 1 else { continue }  // sent, or wanted more urgently, meanwhile
      marks[page] &= 7
      sentParts[page] = parts[page]
      wanted[Int(level)] -= 1
      return page
    }
    return nil
  }

  mutating func sent(_ page: PageIndex, now: UInt64) { sentAt[page] = Self.tick(now) }

  private static func tick(_ now: UInt64) -> UInt32 { max(1, UInt32(truncatingIfNeeded: now >> 16)) }
}

/// The pages wanted by one client by unicast, and what is known of the client.
struct ServerClient: Sendable {
  private struct Recent: Sendable {
    var page: UInt32 = .max
    /// When it was sent; 0: it is queued.
    var sentAt: UInt64 = 0
  }
  let id: UInt32
  var heardAt: UInt64
  var receiveRate: UInt32 = 0
  var loss: UInt16 = 0
  var wantsUnicast = false
  /// It asked for unicast because multicast loses much of what it is sent.
  var isLossy = false
  /// Who has asked for nothing for half a second says nothing of how it is now.
  func isActive(_ now: UInt64) -> Bool { heardAt + 500_000_000 > now }
  private var queues = [Ring<UInt32>(), Ring<UInt32>(), Ring<UInt32>()]
  /// What was queued or sent last, by the page's low bits; one that another has taken the place of is sent again.
  private var recent: [Recent] = []
  /// A power of two.
  private let places: Int

  /// `expected`: pages that are sent to it unasked.
  init(id: UInt32, expected: Int, now: UInt64) {
    self.id = id
    heardAt = now
    places = max(1024, min(1 << 14, 1 << (Int.bitWidth - max(expected - 1, 1).leadingZeroBitCount)))
  }

  func hasPages(_ urgency: PageRequest.Urgency) -> Bool { !queues[Int(urgency.rawValue)].isEmpty }

  var hasPages: Bool { hasPages(.demand) || hasPages(.prefetch) || hasPages(.push) }

  enum Insertion { case queued, suppressed, full }

  mutating func insert(
    _ page: PageIndex, _ urgency: PageRequest.Urgency, window: UInt64, max: Int, now: UInt64
  ) -> Insertion {
    if recent.isEmpty { recent = Array(repeating: Recent(), count: places) }
    let place = page & (places - 1)
    let last = recent[place]
    if last.page == UInt32(page) {
      if last.sentAt == 0 && urgency != .demand { return .suppressed }
      if last.sentAt != 0 && now < last.sentAt + window { return .suppressed }
    }
    guard queues[Int(urgency.rawValue)].count < max else { return .full }
    recent[place] = Recent(page: UInt32(page), sentAt: 0)
    queues[Int(urgency.rawValue)].append(UInt32(page))
    return .queued
  }

  mutating func pop(_ urgency: PageRequest.Urgency, now: UInt64) -> PageIndex? {
    while let page = queues[Int(urgency.rawValue)].popFirst() {
      let place = Int(page) & (places - 1)
      // A demand queued after it has been sent for both.
      if recent[place].page == page && recent[place].sentAt != 0 { continue }
      recent[place] = Recent(page: page, sentAt: now)
      return Int(page)
    }
    return nil
  }
}
