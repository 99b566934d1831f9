import Crypto
import GuestMemory
import Mcdist
import Testing

@Suite struct RepairTests {
  /// A block of bodies of any length, and its parities.
  struct SentBlock {
    var bodies: [[UInt8]]
    var parities: [[UInt8]]

    init(_ random: inout SplitMix) {
      bodies = (0..<ErasureCode.blockSize).map { _ in
        (0..<Int.random(in: 1...ErasureCode.symbolBytes, using: &random)).map { _ in
          UInt8(truncatingIfNeeded: random.next())
        }
      }
      let padded = bodies.map { $0 + [UInt8](repeating: 0, count: ErasureCode.symbolBytes - $0.count) }
      parities = (0..<ErasureCode.paritiesMax).map { parity in
        var symbol = [UInt8](repeating: 0, count: ErasureCode.symbolBytes)
        for (index, body) in padded.enumerated() {
          let factor = ErasureCode.coefficient(parity: parity, datagram: index)
          symbol.withUnsafeMutableBytes { target in
            body.withUnsafeBytes { ErasureCode.add($0.baseAddress!, times: factor, to: target.baseAddress!) }
          }
        }
        return symbol
      }
    }
  }

  /// Against multiplication byte by byte.
  @Test func sumsAreRight() {
    var random = SplitMix(state: 1)
    let source = (0..<ErasureCode.symbolBytes).map { _ in UInt8(truncatingIfNeeded: random.next()) }
    for factor in 0...255 as ClosedRange<UInt8> {
      var target = source.reversed() as [UInt8]
      let expected = zip(target, source).map { $0 ^ ErasureCode.product($1, factor) }
      target.withUnsafeMutableBytes { target in
        source.withUnsafeBytes { ErasureCode.add($0.baseAddress!, times: factor, to: target.baseAddress!) }
      }
      #expect(target == expected)
    }
  }

  /// Whatever is lost, with as many parities as datagrams lost, whichever, all come back; with fewer, none.
  @Test func anyLossUpToTheParitiesIsRepaired() {
    var random = SplitMix(state: 2)
    for round in 0..<60 {
      let sent = SentBlock(&random)
      var blocks = IncomingBlocks()
      let lost = Set(
        (0..<ErasureCode.blockSize).shuffled(using: &random).prefix(.random(in: 1...16, using: &random)))
      let number = UInt64.random(in: 0..<1 << 50, using: &random)
      for (index, body) in sent.bodies.enumerated().shuffled(using: &random) where !lost.contains(index) {
        let counter = number * UInt64(ErasureCode.blockSize) + UInt64(index)
        body.withUnsafeBytes { blocks.add($0, instance: 5, counter: counter) }
      }
      let used = Array((0..<ErasureCode.paritiesMax).shuffled(using: &random).prefix(lost.count))
      var recovered: [[UInt8]] = []
      for (place, parity) in used.enumerated() {
        if place == used.count - 1 { #expect(recovered.isEmpty) }
        let packet = ParityPacket(instance: 5, block: UInt32(truncatingIfNeeded: number), index: parity)
        for _ in 0..<2 {  // the same one twice is one
          sent.parities[parity].withUnsafeBytes { symbol in
            blocks.add(packet, symbol.baseAddress!) { recovered.append(Array($0)) }
          }
        }
      }
      let expected = lost.sorted().map { index in
        sent.bodies[index] + [UInt8](repeating: 0, count: ErasureCode.symbolBytes - sent.bodies[index].count)
      }
      #expect(recovered == expected, "round \(round)")
    }
  }

  /// Parities of another run of the server, of an older block, or of one of which nothing is known, do no harm.
  @Test func paritiesOutOfPlaceGiveNothingWrong() {
    var random = SplitMix(state: 3)
    let sent = SentBlock(&random)
    var blocks = IncomingBlocks()
    for round in 0..<2000 {
      let instance = UInt64.random(in: 1...2, using: &random)
      let block = UInt64.random(in: 0..<12, using: &random)
      if round % 3 == 0 {
        let packet = ParityPacket(
          instance: instance, block: UInt32(block), index: .random(in: 0..<16, using: &random))
        sent.parities[packet.index].withUnsafeBytes { symbol in
          blocks.add(packet, symbol.baseAddress!) { body in
            #expect(sent.bodies.contains { body.starts(with: $0) })
          }
        }
      } else {
        let index = Int.random(in: 0..<64, using: &random)
        sent.bodies[index].withUnsafeBytes {
          blocks.add($0, instance: instance, counter: block * 64 + UInt64(index))
        }
      }
    }
  }

  @Test func aParityOfAnyBytesIsWithinOrRefused() {
    var random = SplitMix(state: 4)
    var accepted = 0
    for _ in 0..<20_000 {
      let count =
        Bool.random(using: &random) ? PacketHeader.bodyBytesMax : Int.random(in: 0...1400, using: &random)
      var bytes = [UInt8](repeating: 0, count: count)
      for index in 0..<min(count, 16) where index < 13 || Int.random(in: 0..<4, using: &random) == 0 {
        bytes[index] = UInt8.random(in: 0...31, using: &random)
      }
      bytes.withUnsafeBytes { body in
        guard let packet = ParityPacket(body) else { return }
        accepted += 1
        #expect(packet.index < ErasureCode.paritiesMax && count == PacketHeader.bodyBytesMax)
        var again = [UInt8](repeating: 0, count: ParityPacket.headerBytes)
        again.withUnsafeMutableBytes { packet.write(to: $0.baseAddress!) }
        #expect(again.elementsEqual(body.prefix(ParityPacket.headerBytes)))
      }
    }
    #expect(accepted > 100)
  }

  /// Who loses most decides, but not one that says it loses nearly all.
  @Test func theServerSendsAsManyParitiesAsLossCallsFor() {
    func parities(_ losses: [Double]) -> Int {
      var server = ServerMachine(pageCount: 100)
      for (index, loss) in losses.enumerated() {
        server.receive(
          PageRequest(
            client: UInt32(index + 1), sequence: 1, receiveRate: 0, roundTrip: 0,
            loss: UInt16(loss * 65535), wantsUnicast: false, clientTime: 0, runs: []), now: 1_000_000_000)
      }
      return server.paritiesPerBlock(now: 1_000_000_001)
    }
    #expect(parities([]) == 0)
    #expect(parities([0, 0]) == 0)
    #expect((3...5).contains(parities([0, 0.01])))
    #expect((8...10).contains(parities([0.01, 0.05])))
    #expect(parities([0.19, 0.19]) == 16)
    #expect(parities([0, 0.9]) == 0)
  }

  @Test func partsOfARetryReadAsWritten() {
    let runs: [PageRequest.Run] = [
      .init(first: 3, count: 1, urgency: .prefetch, isRetry: true, parts: 0b1100),
      .init(first: 4, count: 7, urgency: .push, isRetry: true), .init(first: 4, count: 7, urgency: .demand),
    ]
    let request = PageRequest(
      client: 1, sequence: 2, receiveRate: 3, roundTrip: 4, wantsUnicast: false, clientTime: 5, runs: runs)
    withUnsafeTemporaryAllocation(byteCount: RequestPacket.bytesMax, alignment: 16) { buffer in
      let count = RequestPacket.write(request, to: buffer.baseAddress!)
      #expect(RequestPacket.read(.init(rebasing: buffer[..<count]), pageCount: 20) == request)
    }
  }

  /// Pieces that lack are told, sent alone, and make the page whole.
  @Test func onlyWhatLacksIsWanted() {
    var server = ServerMachine(pageCount: 10)
    func ask(_ run: PageRequest.Run, _ client: UInt32, position: UInt32, at now: UInt64) {
      server.receive(
        PageRequest(
          client: client, sequence: 1, receiveRate: 0, roundTrip: 0, position: position, wantsUnicast: false,
          clientTime: 0, runs: [run]), now: now)
    }
    ask(.init(first: 2, count: 1, urgency: .prefetch), 1, position: 0, at: 1_000_000)
    #expect(server.next(now: 1_000_000)?.parts == PageParts.all)
    server.sent(2, in: 40)
    let later: UInt64 = 10_000_000
    ask(.init(first: 2, count: 1, urgency: .prefetch, isRetry: true, parts: 0b11), 1, position: 30, at: later)
    #expect(server.next(now: later) == nil)  // it is on its way to this host
    ask(.init(first: 2, count: 1, urgency: .prefetch, isRetry: true, parts: 0b11), 1, position: 41, at: later)
    ask(
      .init(first: 2, count: 1, urgency: .prefetch, isRetry: true, parts: 0b1001), 2, position: 41, at: later)
    let repair = server.next(now: later)
    #expect(repair?.parts == 0b1011)
    #expect(repair?.isRetransmission == true)
    #expect(server.next(now: later) == nil)

    var reassembly = Reassembly()
    let page = [UInt8](repeating: 7, count: Page.bytes)
    page.withUnsafeBytes { page in
      #expect(reassembly.lacking(5) == PageParts.all)
      let first = UnsafeRawBufferPointer(rebasing: page[..<1008])
      _ = reassembly.add(page: 5, encoding: .raw, total: Page.bytes, offset: 0, part: first, instance: 1)
      #expect(reassembly.lacking(5) == 0xfff8)
      #expect(reassembly.lacking(5 + Reassembly.places) == PageParts.all)
    }
  }
}
