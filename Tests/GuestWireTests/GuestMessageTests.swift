import GuestWire
import Testing

@Suite struct GuestMessageTests {
  static let everyMessage: [GuestMessage] = [
    .hello(.init(session: 1, epoch: 2, hostTimeNanoseconds: 3)),
    .prepare(dropsCache: true), .resume(epoch: .max), .identity(identity), .shutdown,
    .welcome(.init(agentVersion: "1.0", kernelRelease: "6.1.0", vcpus: 4, bootID: "b", epoch: 9)),
    .network(.init(ipAddress: "10.0.0.2/8", gateway: "", names: "10.0.0.2 dev\n")),
    .networkTaken(reason: nil), .networkTaken(reason: "no interface"),
    .prepared(reason: nil, noteAddress: 1 << 33, noteBytes: 4096),
    .prepared(reason: "no /dev/kmsg", noteAddress: 0, noteBytes: 0),
    .identityTaken(.init(reason: nil, microseconds: 12)),
    .identityTaken(.init(reason: "no reseed", microseconds: 3_000_000)),
    .requestTicket(clones: 8, hierarchical: true, host: "h2"), .clone(ticket: "t"), .checkpoint,
    .createClones(snapshot: "s", ticket: "t"), .exit(vmid: 3, status: -7, result: [1, 2, 3]),
    .join(ticket: "t", timeoutMilliseconds: -1), .kill(ticket: "t"), .cancel,
    .cloneName(ticket: "t", vmid: 3), .cloneNamed(name: "dev.3"),
    .ticketGranted(ticket: "t", granted: 7), .cloned(vmid: 0, granted: 8),
    .checkpointed(snapshot: "s"), .done,
    .joinStatus(.init(vmid: 1, how: .lost, status: 0, result: [], reason: "QEMU ended")),
    .joinStatus(
      .init(vmid: 2, how: .exited, status: 5, result: .init(repeating: 1, count: 1 << 20), reason: "")),
    .exec(.init(id: 1, arguments: ["/bin/sh", "-c", "echo ü"], environment: ["A=b"])),
    .execInput(id: 1, bytes: [0]), .execInputClosed(id: 1), .execSignal(id: 1, signal: 15),
    .execStarted(id: 1, pid: 77), .execOutput(id: 1, stream: .error, bytes: [1]),
    .execExited(id: 1, status: 137), .failed(errno: 11, message: "try again"),
    .execCredit(id: 1, stream: .output, bytes: 65536),
    .run(.init(clone: "dev.1", arguments: ["/bin/sh", "-c", "echo ü"], environment: ["A=b"])),
    .runInput(bytes: [0]), .runInputClosed, .runSignal(signal: 15),
    .runOutput(stream: .error, bytes: [1]), .runExited(status: 137),
    .runCredit(stream: .input, bytes: 65536),
  ]

  static let identity = GuestMessage.Identity(
    epoch: 5, vmid: 2, processes: 2, hostname: "dev-2", machineID: Array(0..<16),
    wallClockNanoseconds: 1_700_000_000_000_000_000, seed: Array(100..<164), ticket: "ticket",
    snapshot: "snapshot", cloneRequest: 6, ipAddress: "10.0.0.2/24",
    macAddress: "52:54:00:00:00:02", gateway: "10.0.0.1")

  @Test(arguments: everyMessage) func comesBackAsItWent(message: GuestMessage) throws {
    let frame = try Frame(message, epoch: 1, request: 2)
    #expect(try GuestMessage(frame, receiver: message.receiver) == message)
  }

  @Test func everyTypeIsTested() {
    #expect(Set(Self.everyMessage.map(\.type)) == Set(MessageType.allCases))
  }

  @Test(arguments: everyMessage) func nothingButItsWholeBodyIsTaken(message: GuestMessage) throws {
    let whole = try Frame(message, epoch: 1)
    let cuts = whole.body.count <= 400 ? Array(0..<whole.body.count) : [0, 1, whole.body.count - 1]
    for length in cuts {
      var frame = whole
      frame.body.removeLast(frame.body.count - length)
      #expect(throws: GuestWireError.self) { try GuestMessage(frame, receiver: message.receiver) }
    }
    var longer = whole
    longer.body.append(0)
    #expect(throws: GuestWireError.trailingBytes(1)) {
      try GuestMessage(longer, receiver: message.receiver)
    }
  }

  @Test func messagesGoOneWay() throws {
    let frame = try Frame(.shutdown, epoch: 1)
    #expect(throws: GuestWireError.wrongDirection(.shutdown)) { try GuestMessage(frame, receiver: .host) }
    let request = try Frame(.checkpoint, epoch: 1)
    #expect(throws: GuestWireError.wrongDirection(.checkpoint)) {
      try GuestMessage(request, receiver: .guest)
    }
    #expect(throws: GuestWireError.unknownType(0)) {
      try GuestMessage(Frame(type: 0, epoch: 1, request: 0, body: []), receiver: .host)
    }
  }

  @Test func lengthsThatLieAreRefusedBeforeAnythingIsAllocated() {
    func decode(_ type: MessageType, _ body: [UInt8]) throws -> GuestMessage {
      try GuestMessage(Frame(type: type.rawValue, epoch: 1, request: 0, body: body), receiver: .host)
    }
    #expect(throws: GuestWireError.tooLong(field: "ticket", length: 0xFFFF_FFFF, limit: 256)) {
      try decode(.kill, [0xFF, 0xFF, 0xFF, 0xFF])
    }
    #expect(throws: GuestWireError.truncated(field: "ticket")) { try decode(.kill, [3, 0, 0, 0, 65]) }
    #expect(throws: GuestWireError.notUTF8(field: "ticket")) { try decode(.kill, [1, 0, 0, 0, 0xFF]) }
    #expect(throws: GuestWireError.unknownValue(field: "hierarchical", value: 2)) {
      try decode(.requestTicket, [1, 0, 0, 0, 2])
    }
    #expect(throws: GuestWireError.unknownValue(field: "stream", value: 3)) {
      try decode(.execOutput, [1, 0, 0, 0, 3, 0, 0, 0, 0])
    }
    #expect(throws: GuestWireError.tooLong(field: "arguments", length: 4097, limit: 4096)) {
      try decode(.run, [1, 0, 0, 0, 65, 1, 0x10, 0, 0])
    }
    #expect(throws: GuestWireError.tooLong(field: "bytes", length: 0x10001, limit: 0x10000)) {
      try decode(.runInput, [1, 0, 1, 0])
    }
  }

  @Test func whatIsTooLongIsNotSent() {
    let result = [UInt8](repeating: 0, count: GuestMessage.resultLimit + 1)
    #expect(throws: GuestWireError.tooLong(field: "result", length: result.count, limit: result.count - 1)) {
      try Frame(.exit(vmid: 1, status: 0, result: result), epoch: 1)
    }
    var short = Self.identity
    short.seed.removeLast()
    #expect(throws: GuestWireError.wrongLength(field: "seed", length: 63, expected: 64)) {
      try Frame(.identity(short), epoch: 1)
    }
  }

  @Test(arguments: 0..<40) func randomBodiesDecodeOrThrow(seed: UInt64) {
    var random = SplitMix64(seed: seed)
    for _ in 0..<2000 {
      let body = (0..<Int.random(in: 0...80, using: &random)).map { _ in
        // Small numbers, so that lengths are often plausible.
        UInt8.random(in: 0...(Bool.random(using: &random) ? 8 : 255), using: &random)
      }
      let type = MessageType.allCases.randomElement(using: &random)!
      let receiver: GuestMessage.Receiver = type.direction == .toGuest ? .guest : .host
      let frame = Frame(type: type.rawValue, epoch: 1, request: 0, body: body)
      // What decodes must encode to the same bytes: a body has one meaning.
      if let message = try? GuestMessage(frame, receiver: receiver) {
        #expect((try? message.encodedBody()) == body)
      }
    }
  }
}

extension GuestMessage: CustomTestStringConvertible {
  public var testDescription: String { "\(type)" }
}

extension GuestMessage {
  fileprivate var receiver: Receiver { type.direction == .toGuest ? .guest : .host }
}
