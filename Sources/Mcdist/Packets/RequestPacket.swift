/// The body of a request.
///
///     0        4          8              12      13     14     16            24              28         32
///     | client | sequence | receive rate | flags | runs | loss | client time | round trip µs | position | runs × 8 bytes
///     | u32    | u32      | u32, bytes/s | u8    | u8   | u16  | u64         | u32           | u32      |
///
///     run: | first page u32 | pages u16 | urgency u8 | retry u8 |
///
/// retry 0: first asked for; 1: asked for again; 2: one page of which pieces came: in the place of `pages` a bit for each
/// 256 of its bytes as they travel that lack.
/// flags: bit 0 the client wants unicast, bit 1 it is warm; others are zero. runs: at most 64; none: a sign of life.
package enum RequestPacket {
  package static let headerBytes = 32
  package static let runBytes = 8
  package static let bytesMax = headerBytes + PageRequest.runsMax * runBytes

  /// `body`: `bytesMax` long. The bytes written.
  package static func write(_ request: PageRequest, to body: UnsafeMutableRawPointer) -> Int {
    precondition(request.runs.count <= PageRequest.runsMax)
    body.storeLittle(request.client, at: 0)
    body.storeLittle(request.sequence, at: 4)
    body.storeLittle(request.receiveRate, at: 8)
    body.storeLittle(UInt8((request.wantsUnicast ? 1 : 0) | (request.isWarm ? 2 : 0)), at: 12)
    body.storeLittle(UInt8(request.runs.count), at: 13)
    body.storeLittle(request.loss, at: 14)
    body.storeLittle(request.clientTime, at: 16)
    body.storeLittle(request.roundTrip, at: 24)
    body.storeLittle(request.position, at: 28)
    var at = headerBytes
    for run in request.runs {
      body.storeLittle(run.first, at: at)
      let isPart = run.isRetry && run.count == 1 && run.parts != PageParts.all
      body.storeLittle(isPart ? run.parts : run.count, at: at + 4)
      body.storeLittle(run.urgency.rawValue, at: at + 6)
      body.storeLittle(UInt8(isPart ? 2 : run.isRetry ? 1 : 0), at: at + 7)
      at += runBytes
    }
    return at
  }

  /// Nil: malformed, or with pages that the snapshot has not.
  package static func read(_ body: UnsafeRawBufferPointer, pageCount: Int) -> PageRequest? {
    guard body.count >= headerBytes, body[12] <= 3 else { return nil }
    let count = Int(body[13])
    let client = body.little(UInt32.self, at: 0)
    guard client != 0, count <= PageRequest.runsMax, body.count == headerBytes + count * runBytes else {
      return nil
    }
    var runs: [PageRequest.Run] = []
    runs.reserveCapacity(count)
    for index in 0..<count {
      let at = headerBytes + index * runBytes
      let first = body.little(UInt32.self, at: at)
      let number = body.little(UInt16.self, at: at + 4)
      let isPart = body[at + 7] == 2
      let pages = isPart ? 1 : number
      guard let urgency = PageRequest.Urgency(rawValue: body[at + 6]), body[at + 7] <= 2, number > 0,
        Int(first) + Int(pages) <= pageCount
      else { return nil }
      runs.append(
        .init(
          first: first, count: pages, urgency: urgency, isRetry: body[at + 7] > 0,
          parts: isPart ? number : PageParts.all))
    }
    return PageRequest(
      client: client, sequence: body.little(UInt32.self, at: 4), receiveRate: body.little(UInt32.self, at: 8),
      roundTrip: body.little(UInt32.self, at: 24), position: body.little(UInt32.self, at: 28),
      loss: body.little(UInt16.self, at: 14),
      wantsUnicast: body[12] & 1 != 0, isWarm: body[12] & 2 != 0,
      clientTime: body.little(UInt64.self, at: 16), runs: runs)
  }
}
