import Crypto
import GuestMemory
import Mcdist
import Testing

@Suite struct PacketTests {
  @Test func aRequestReadsAsWritten() {
    var random = SplitMix(state: 1)
    for _ in 0..<500 {
      let request = PageRequest(
        client: .random(in: 1 ... .max, using: &random), sequence: random.next32(),
        receiveRate: random.next32(),
        roundTrip: random.next32(), position: random.next32(),
        loss: UInt16(truncatingIfNeeded: random.next()),
        wantsUnicast: Bool.random(using: &random), isWarm: Bool.random(using: &random),
        clientTime: random.next(),
        runs: (0..<Int.random(in: 0...64, using: &random)).map { _ in
          .init(
            first: .random(in: 0..<1000, using: &random), count: .random(in: 1...1000, using: &random),
            urgency: PageRequest.Urgency(rawValue: .random(in: 0...2, using: &random))!,
            isRetry: Bool.random(using: &random))
        })
      withUnsafeTemporaryAllocation(byteCount: RequestPacket.bytesMax, alignment: 16) { buffer in
        let count = RequestPacket.write(request, to: buffer.baseAddress!)
        let body = UnsafeRawBufferPointer(rebasing: buffer[..<count])
        #expect(RequestPacket.read(body, pageCount: 2000) == request)
        let outside = request.runs.contains { Int($0.first) + Int($0.count) > 500 }
        #expect((RequestPacket.read(body, pageCount: 500) == nil) == outside)
        for short in 0..<count {
          #expect(RequestPacket.read(.init(rebasing: body[..<short]), pageCount: 2000) == nil)
        }
      }
    }
  }

  /// Random bytes and damaged bodies: whatever the decoders accept lies within the body and the snapshot.
  @Test func decodersStandAnyBytes() {
    var random = SplitMix(state: 2)
    let pageCount = 300
    let size = PacketHeader.bodyBytesMax
    var accepted = 0
    withUnsafeTemporaryAllocation(byteCount: size, alignment: 16) { buffer in
      for round in 0..<400_000 {
        let count =
          round % 4 == 0 ? Int.random(in: 0...size, using: &random) : Int.random(in: 0...80, using: &random)
        for index in 0..<min(count, 96) { buffer[index] = UInt8(truncatingIfNeeded: random.next()) }
        if round % 2 == 0 && count > 40 {  // near a right one
          for index in 12..<16 { buffer[index] = 0 }
          buffer[16] = UInt8.random(in: 0...4, using: &random)
          for index in 18..<21 { buffer[index] = 0 }
          buffer[21] &= 1
        }
        let body = UnsafeRawBufferPointer(rebasing: buffer[..<count])
        if let request = RequestPacket.read(body, pageCount: pageCount) {
          #expect(request.runs.allSatisfy { Int($0.first) + Int($0.count) <= pageCount })
        }
        _ = PacketHeader(body)
        guard var reader = PageReader(body, pageCount: pageCount) else { continue }
        accepted += 1
        while let record = reader.next() {
          let isWithin =
            switch record {
            case .zeros(let pages): pages.upperBound <= pageCount && !pages.isEmpty
            case .part(let page, _, let total, let offset, let bytes):
              page < pageCount && total <= Page.bytes && offset + bytes.count <= total
                && bytes.upperBound <= count
            case .same(let page, let other): page < pageCount && other < pageCount
            }
          #expect(isWithin)
        }
      }
    }
    #expect(accepted > 1000)
  }

  @Test func anyCompressedBytesAreAPageOrRefused() {
    var random = SplitMix(state: 3)
    var page = [UInt8](repeating: 0, count: Page.bytes)
    let expander = PageExpander()
    for _ in 0..<100_000 {
      let bytes = (0..<Int.random(in: 1...64, using: &random)).map { _ in
        UInt8(truncatingIfNeeded: random.next())
      }
      bytes.withUnsafeBytes { bytes in
        page.withUnsafeMutableBytes { _ = expander.expand(bytes, into: $0.baseAddress!) }
      }
    }
  }

  @Test func compressionGivesThePageBack() throws {
    let pages = makePages(50, seed: 4)
    let compressor = PageCompressor()
    let expander = PageExpander()
    var smaller = 0
    try pages.withUnsafeBytes { all in
      for index in 0..<50 {
        let page = all.baseAddress! + index * Page.bytes
        #expect(PageCompressor.isZero(page) == (index % 5 == 4))
        var target = [UInt8](repeating: 0, count: PageCompressor.compressedMax)
        guard let count = target.withUnsafeMutableBytes({ compressor.compress(page, into: $0.baseAddress!) })
        else {
          continue
        }
        smaller += 1
        var back = [UInt8](repeating: 1, count: Page.bytes)
        let isWhole = target.withUnsafeBytes { bytes in
          back.withUnsafeMutableBytes {
            expander.expand(.init(rebasing: bytes[..<count]), into: $0.baseAddress!)
          }
        }
        try #require(isWhole)
        #expect(back.elementsEqual(UnsafeRawBufferPointer(start: page, count: Page.bytes)))
      }
    }
    #expect(smaller == 30)
  }

  @Test func onlyTheLastPartMakesAPageWhole() {
    var random = SplitMix(state: 5)
    var reassembly = Reassembly()
    let page = (0..<Page.bytes).map { _ in UInt8(truncatingIfNeeded: random.next()) }
    page.withUnsafeBytes { page in
      for _ in 0..<200 {
        let cuts = Set((0..<3).map { _ in Int.random(in: 1..<256, using: &random) * 16 })
        let bounds = [0] + cuts.sorted() + [Page.bytes]
        let parts = zip(bounds, bounds.dropFirst()).map { $0..<$1 }.shuffled(using: &random)
        for (index, part) in parts.enumerated() {
          func add(instance: UInt64) -> UnsafeRawBufferPointer? {
            reassembly.add(
              page: 9, encoding: .raw, total: Page.bytes, offset: part.lowerBound,
              part: .init(rebasing: page[part]), instance: instance)
          }
          if index < parts.count - 1 { #expect(add(instance: 1) == nil) }
          let whole = add(instance: 2)  // twice, and from another server run: raw bytes are the same
          #expect((whole != nil) == (index == parts.count - 1))
          if let whole { #expect(whole.elementsEqual(page)) }
        }
      }
      // What two runs of a server compress may differ: halves of both do not make a page.
      let half = UnsafeRawBufferPointer(rebasing: page[..<512])
      #expect(
        reassembly.add(page: 1, encoding: .zstd, total: 1024, offset: 0, part: half, instance: 1) == nil)
      #expect(
        reassembly.add(page: 1, encoding: .zstd, total: 1024, offset: 512, part: half, instance: 2) == nil)
      #expect(
        reassembly.add(page: 1, encoding: .zstd, total: 1024, offset: 0, part: half, instance: 2) != nil)
    }
  }
}

@Suite struct SealTests {
  let key = SymmetricKey(data: (0..<32).map { UInt8($0) })

  private func seal(_ sealer: inout Sealer, _ text: String) -> [UInt8] {
    var datagram = [UInt8](repeating: 0, count: PacketHeader.datagramBytesMax)
    let count = datagram.withUnsafeMutableBytes { datagram in
      Array(text.utf8).withUnsafeBytes { sealer.seal($0, kind: .pages, into: datagram.baseAddress!) }
    }
    return Array(datagram[..<count])
  }

  private func open(_ opener: Opener, _ datagram: [UInt8]) -> String? {
    var body = [UInt8](repeating: 0, count: PacketHeader.bodyBytesMax)
    let opened = body.withUnsafeMutableBytes { body in
      datagram.withUnsafeBytes { opener.open($0, into: body.baseAddress!) }
    }
    return opened.map { String(decoding: body[..<$0.bytes], as: UTF8.self) }
  }

  private func opener(_ direction: SealDirection = .pages, sendersMax: Int = 4) -> Opener {
    Opener(snapshotKey: key, direction: direction, sendersMax: sendersMax)
  }

  @Test func opensOnceAndNothingElse() {
    var sealer = Sealer(snapshotKey: key, direction: .pages, instance: 7)
    let datagram = seal(&sealer, "hello")
    let reader = opener()
    for index in datagram.indices {
      for bit in 0..<8 {
        var altered = datagram
        altered[index] ^= 1 << UInt8(bit)
        #expect(open(reader, altered) == nil)
      }
    }
    for count in 0..<datagram.count { #expect(open(reader, Array(datagram[..<count])) == nil) }
    #expect(open(opener(.requests), datagram) == nil)  // the other direction's key
    let stranger = Opener(snapshotKey: SymmetricKey(size: .bits256), direction: .pages, sendersMax: 4)
    #expect(open(stranger, datagram) == nil)
    #expect(open(reader, datagram) == "hello")
    #expect(open(reader, datagram) == nil)  // replayed
  }

  @Test func aForgedSenderTakesNoPlace() {
    let reader = opener(sendersMax: 1)
    var sealer = Sealer(snapshotKey: key, direction: .pages, instance: 1)
    let first = seal(&sealer, "1")
    #expect(open(reader, first) == "1")
    var forger = Sealer(snapshotKey: SymmetricKey(size: .bits256), direction: .pages, instance: 2)
    #expect(open(reader, seal(&forger, "x")) == nil)
    #expect(open(reader, first) == nil)  // still remembered
    #expect(open(reader, seal(&sealer, "2")) == "2")
  }

  @Test func noKeyIsUsedTwice() {
    let keys = [1, 2].flatMap { instance in
      [SealDirection.pages, .requests].map { direction in
        direction.key(snapshot: key, instance: instance).withUnsafeBytes { Array($0) }
      }
    }
    #expect(Set(keys).count == 4)
  }

  /// Against a set of all counters seen.
  @Test func theWindowAgreesWithItsModel() {
    for seed in 0..<50 as Range<UInt64> {
      var random = SplitMix(state: seed)
      var window = ReplayWindow()
      var seen: Set<UInt64> = []
      var highest: UInt64 = 0
      var base: UInt64 = seed % 2 == 0 ? 0 : .random(in: 0..<1 << 60, using: &random)
      for _ in 0..<5000 {
        if Int.random(in: 0..<200, using: &random) == 0 { base += .random(in: 0..<5000, using: &random) }
        base += .random(in: 0...3, using: &random)
        let back = UInt64.random(in: 0..<1500, using: &random)
        let counter = base >= back ? base - back : base
        let isNew = !seen.contains(counter) && (seen.isEmpty || counter + ReplayWindow.size > highest)
        #expect(window.isNew(counter) == isNew, "seed \(seed), counter \(counter)")
        guard isNew else { continue }
        window.insert(counter)
        seen.insert(counter)
        highest = max(highest, counter)
      }
    }
  }
}

extension SplitMix {
  mutating func next32() -> UInt32 { UInt32(truncatingIfNeeded: next()) }
}
