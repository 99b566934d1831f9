import GuestWire
import Testing

@Suite struct FrameTests {
  @Test func checksumHasTheStandardsCheckValue() {
    #expect(CRC32C.checksum(Array("123456789".utf8)) == 0xE306_9283)
    // RFC 3720, B.4: 32 bytes of zeros, and of ones.
    #expect(CRC32C.checksum([UInt8](repeating: 0, count: 32)) == 0x8A91_36AA)
    #expect(CRC32C.checksum([UInt8](repeating: 0xFF, count: 32)) == 0x62A8_AB43)
    #expect(CRC32C.checksum([]) == 0)
  }

  @Test func aFrameHasTheseBytes() throws {
    let frame = try Frame(
      .ticketGranted(ticket: "t1", granted: 8), epoch: 0x0102_0304_0506_0708, request: 0x0A0B_0C0D)
    #expect(
      frame.encoded() == [
        0x53, 0x4E, 0x57, 0x46,  // magic "SNWF"
        0x01,  // version
        0x10,  // type 16, ticketGranted
        0x00, 0x00,  // flags
        0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01,  // epoch
        0x0D, 0x0C, 0x0B, 0x0A,  // request
        0x0A, 0x00, 0x00, 0x00,  // length 10
        0x31, 0xE3, 0x4B, 0xD3,  // body CRC32C
        0xBC, 0x8D, 0x61, 0x5F,  // header CRC32C
        0x02, 0x00, 0x00, 0x00, 0x74, 0x31,  // ticket: length 2, "t1"
        0x08, 0x00, 0x00, 0x00,  // granted
      ])
  }

  @Test func framesComeOutWholeHoweverTheStreamIsCut() throws {
    let frames = try [
      Frame(.prepare(dropsCache: false), epoch: 1),
      Frame(.exit(vmid: 3, status: -1, result: .init(repeating: 7, count: 5000)), epoch: 2, request: 9),
      Frame(.done, epoch: 3, request: 10),
    ]
    let stream = frames.flatMap { $0.encoded() }
    for chunk in [1, 3, 31, 32, 33, 1000, stream.count] {
      var decoder = FrameDecoder()
      var decoded: [FrameDecoder.Outcome] = []
      for start in stride(from: 0, to: stream.count, by: chunk) {
        decoder.append(Array(stream[start..<min(start + chunk, stream.count)]))
        decoded += drain(&decoder)
      }
      #expect(decoded == frames.map { .frame($0) })
      #expect(decoder.pendingByteCount == 0)
    }
  }

  @Test func aFrameCutShortDoesNotSwallowTheNext() throws {
    let cut = try Frame(.execOutput(id: 1, stream: .output, bytes: [1, 2, 3, 4, 5]), epoch: 1).encoded()
    let next = try Frame(.done, epoch: 1, request: 4)
    var decoder = FrameDecoder()
    decoder.append(Array(cut.dropLast(3)))
    decoder.append(next.encoded())
    #expect(
      drain(&decoder) == [.violation(.bodyChecksum), .violation(.noMagic(skippedBytes: 11)), .frame(next)])
  }

  @Test func eachWayToBreakAHeaderHasItsName() throws {
    func outcome(_ change: (inout [UInt8]) -> Void, sealed: Bool) throws -> FrameDecoder.Outcome {
      var bytes = try Frame(.done, epoch: 1).encoded()
      change(&bytes)
      if sealed {
        let checksum = CRC32C.checksum(Array(bytes[..<28]))
        for index in 0..<4 { bytes[28 + index] = UInt8(truncatingIfNeeded: checksum >> (8 * index)) }
      }
      var decoder = FrameDecoder()
      decoder.append(bytes)
      return decoder.next()
    }
    #expect(try outcome({ $0[9] ^= 1 }, sealed: false) == .violation(.headerChecksum))
    #expect(try outcome({ $0[4] = 2 }, sealed: true) == .violation(.unsupportedVersion(2)))
    #expect(try outcome({ $0[6] = 1 }, sealed: true) == .violation(.reservedFlags(1)))
    #expect(try outcome({ $0[23] = 0x80 }, sealed: true) == .violation(.bodyTooLong(0x8000_0000)))
    #expect(try outcome({ $0[0] = 0 }, sealed: false) == .violation(.noMagic(skippedBytes: 32)))
  }

  @Test(arguments: 0..<40) func noNoiseGetsThroughAndTheNextFrameDoes(seed: UInt64) throws {
    // The seed is the test's argument: a failure prints it.
    var random = SplitMix64(seed: seed)
    var stream: [UInt8] = []
    var sent: [Frame] = []
    for number in 0..<60 {
      let body = (0..<Int.random(in: 0...300, using: &random)).map { _ in
        UInt8.random(in: 0...255, using: &random)
      }
      let frame = Frame(type: 97, epoch: random.next(), request: UInt32(number), body: body)
      var bytes = frame.encoded()
      switch Int.random(in: 0..<5, using: &random) {
      case 0:
        bytes[Int.random(in: 0..<bytes.count, using: &random)] ^= 1 << UInt8.random(in: 0..<8, using: &random)
      case 1: bytes.removeLast(Int.random(in: 1..<bytes.count, using: &random))
      case 2:
        stream += (0..<20).map { _ in UInt8.random(in: 0...255, using: &random) } + Array("SNW".utf8);
        sent.append(frame)
      default: sent.append(frame)
      }
      stream += bytes
    }
    // Enough behind the last frame that a length broken in the middle of the stream is filled.
    stream += [UInt8](repeating: 0, count: 400)
    var decoder = FrameDecoder()
    decoder.append(stream)
    let received = drain(&decoder).compactMap { outcome in
      if case .frame(let frame) = outcome { frame } else { nil }
    }
    #expect(received == sent)
  }

  private func drain(_ decoder: inout FrameDecoder) -> [FrameDecoder.Outcome] {
    var outcomes: [FrameDecoder.Outcome] = []
    while true {
      let outcome = decoder.next()
      if outcome == .needMore { return outcomes }
      outcomes.append(outcome)
    }
  }
}

struct SplitMix64: RandomNumberGenerator {
  private var state: UInt64
  init(seed: UInt64) { state = seed }
  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
    return mixed ^ (mixed >> 31)
  }
}
