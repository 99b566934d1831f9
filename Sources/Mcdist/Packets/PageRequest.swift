/// What a receiver asks for, and tells of itself: the body of a request datagram.
///
///     0        4          8              12               16            20      21     22         24     32       runs
///     | client | sequence | receive rate | multicast loss | unused      | flags | runs | unused   | time |  …  8 bytes each
///     run: first page u32, count u16, urgency u8, flags u8 (1: a retry)
public struct PageRequest: Equatable, Sendable {
  public enum Urgency: UInt8, Sendable, Comparable {
    /// A fault waits for it.
    case demand = 0
    case prefetch = 1
    case push = 2
    public static func < (a: Urgency, b: Urgency) -> Bool { a.rawValue < b.rawValue }
  }

  public struct Run: Equatable, Sendable {
    public var first: UInt32
    /// 1 to `runPagesMax`.
    public var count: UInt16
    public var urgency: Urgency
    /// Asked for before and not received.
    public var isRetry: Bool

    public init(first: UInt32, count: UInt16, urgency: Urgency, isRetry: Bool) {
      self.first = first
      self.count = count
      self.urgency = urgency
      self.isRetry = isRetry
    }
  }

  public static let runsMax = 64
  public static let runPagesMax = 64

  /// Random, of the receiver's run.
  public var client: UInt32
  public var sequence: UInt32 = 0
  /// Bytes a second, a weighted average over 10 ms; 0: not known yet.
  public var receiveRate: UInt32 = 0
  /// Of the last multicast datagrams, in thousandths.
  public var multicastLoss: UInt32 = 0
  /// To this client by unicast.
  public var wantsUnicast = false
  /// Asks for a sign by multicast, to see whether it arrives.
  public var probesMulticast = false
  /// The receiver's clock, sent back to it.
  public var clientTime: UInt64 = 0
  public var runs: [Run] = []

  public init(client: UInt32) { self.client = client }

  static let fixedBytes = 32

  func encode(into body: inout BodyWriter) {
    body.put(client)
    body.put(sequence)
    body.put(receiveRate)
    body.put(multicastLoss)
    body.put(UInt32(0))
    body.put(UInt8((wantsUnicast ? 1 : 0) | (probesMulticast ? 2 : 0)))
    body.put(UInt8(runs.count))
    body.put(UInt16(0))
    body.put(clientTime)
    for run in runs {
      body.put(run.first)
      body.put(run.count)
      body.put(run.urgency.rawValue)
      body.put(UInt8(run.isRetry ? 1 : 0))
    }
  }

  /// Nil: no request for a RAM of `pageCount` pages.
  static func decode(_ bytes: UnsafeRawBufferPointer, pageCount: Int) -> PageRequest? {
    var body = BodyReader(bytes)
    guard let client: UInt32 = body.take(), let sequence: UInt32 = body.take(),
      let rate: UInt32 = body.take(), let loss: UInt32 = body.take(), body.take(UInt32.self) != nil,
      let flags: UInt8 = body.take(), let count: UInt8 = body.take(), body.take(UInt16.self) != nil,
      let time: UInt64 = body.take(), count <= runsMax, body.left == Int(count) * 8
    else { return nil }
    var request = PageRequest(client: client)
    request.sequence = sequence
    request.receiveRate = rate
    request.multicastLoss = min(loss, 1000)
    request.wantsUnicast = flags & 1 != 0
    request.probesMulticast = flags & 2 != 0
    request.clientTime = time
    request.runs.reserveCapacity(Int(count))
    for _ in 0..<count {
      guard let first: UInt32 = body.take(), let pages: UInt16 = body.take(),
        let urgency: UInt8 = body.take(),
        let runFlags: UInt8 = body.take(), let urgency = Urgency(rawValue: urgency),
        (1...runPagesMax).contains(Int(pages)), Int(first) + Int(pages) <= pageCount
      else { return nil }
      request.runs.append(
        Run(first: first, count: pages, urgency: urgency, isRetry: runFlags & 1 != 0))
    }
    return request
  }
}
