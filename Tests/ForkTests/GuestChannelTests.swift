import Fork
import GuestWire
import NIOCore
import NIOEmbedded
import Synchronization
import Testing

/// The host's end of a guest's channel against guests that lie, played at the bytes.
struct GuestChannelTests {
  static let epoch: UInt64 = 7

  /// A channel with a handler on it, and what the handler reported.
  final class Line {
    let channel = EmbeddedChannel()
    let handler: GuestChannelHandler
    private let reported = Reported()

    final class Reported: Sendable {
      let events = Mutex<[GuestEvent]>([])
    }

    init() throws {
      let reported = reported
      handler = GuestChannelHandler(epoch: GuestChannelTests.epoch) { event in
        reported.events.withLock { $0.append(event) }
      }
      try channel.pipeline.syncOperations.addHandler(handler)
      try channel.connect(to: .init(unixDomainSocketPath: "/guest")).wait()
    }

    func receive(_ bytes: [UInt8]) throws { try channel.writeInbound(ByteBuffer(bytes: bytes)) }

    func receive(_ message: GuestMessage, epoch: UInt64 = GuestChannelTests.epoch, request: UInt32 = 0) throws
    {
      try receive(Frame(message, epoch: epoch, request: request).encoded())
    }

    var events: [GuestEvent] { reported.events.withLock { $0 } }

    var cutOffReason: String? {
      for case .cutOff(let reason) in events { return reason }
      return nil
    }

    var requests: [GuestMessage] {
      events.compactMap { if case .request(_, let message) = $0 { message } else { nil } }
    }
  }

  @Test func `a request is reported with its number`() throws {
    let line = try Line()
    try line.receive(.requestTicket(clones: 8, hierarchical: false), request: 5)
    guard case .request(5, .requestTicket(clones: 8, hierarchical: false, host: "")) = line.events.first
    else {
      Issue.record("reported \(line.events)")
      return
    }
    #expect(line.cutOffReason == nil)
  }

  @Test func `frames of another epoch are dropped`() throws {
    let line = try Line()
    try line.receive(.checkpoint, epoch: Self.epoch + 1)
    try line.receive(.checkpoint)
    #expect(line.requests == [.checkpoint])
  }

  @Test func `what a clone replays, cut anywhere, is passed over until its first own message`() throws {
    let old = try Frame(.clone(ticket: "t-1"), epoch: Self.epoch - 1, request: 9).encoded()
    for cut in 0..<old.count {
      let line = try Line()
      try line.receive(Array(old.suffix(from: cut)))
      try line.receive(.checkpoint)
      #expect(line.cutOffReason == nil)
      #expect(line.requests == [.checkpoint], "cut at \(cut)")
    }
  }

  @Test func `garbage after that cuts it off, once`() throws {
    let line = try Line()
    try line.receive(.checkpoint)
    try line.receive([UInt8](repeating: 0x5A, count: 4096))
    #expect(line.cutOffReason?.contains("broken frame") == true)
    #expect(line.events.count { if case .cutOff = $0 { true } else { false } } == 1)
    #expect(!line.channel.isActive)
  }

  @Test func `a length beyond the limit cuts it off before a byte of the body is waited for`() throws {
    let line = try Line()
    try line.receive(.checkpoint)
    var header = Array(try Frame(.checkpoint, epoch: Self.epoch).encoded().prefix(28))
    withUnsafeBytes(of: UInt32(64 << 20).littleEndian) { header.replaceSubrange(20..<24, with: $0) }
    withUnsafeBytes(of: CRC32C.checksum(header).littleEndian) { header += $0 }
    try line.receive(header)
    #expect(line.cutOffReason?.contains("bodyTooLong") == true)
  }

  @Test func `a message that only the host sends cuts it off`() throws {
    let line = try Line()
    try line.receive(.prepare(dropsCache: false))
    #expect(line.cutOffReason != nil)
  }

  @Test func `a flood cuts it off`() throws {
    let line = try Line()
    let frame = try Frame(.cancel, epoch: Self.epoch).encoded()
    for _ in 0..<Int(GuestChannelHandler.messageBurst) * 2 where line.channel.isActive {
      try line.receive(frame)
    }
    #expect(line.cutOffReason?.contains("messages a second") == true)
  }

  @Test func `command output beyond its credit cuts it off`() throws {
    let line = try Line()
    let (output, continuation) = AsyncThrowingStream.makeStream(of: GuestCommand.Event.self)
    let started = line.channel.eventLoop.makePromise(of: GuestMessage.self)
    line.handler.start(
      GuestCommand.State(continuation), arguments: ["yes"], environment: [], promise: started)
    var decoder = FrameDecoder()
    decoder.append(Array(buffer: try #require(try line.channel.readOutbound(as: ByteBuffer.self))))
    guard case .frame(let frame) = decoder.next(),
      case .exec(let exec) = try GuestMessage(frame, receiver: .guest)
    else {
      Issue.record("no exec was sent")
      return
    }
    try line.receive(.execStarted(id: exec.id, pid: 2), request: frame.request)
    let chunk = [UInt8](repeating: 0x79, count: GuestMessage.execChunkLimit)
    for _ in 0...GuestMessage.execInitialWindow / chunk.count where line.cutOffReason == nil {
      try line.receive(.execOutput(id: exec.id, stream: .output, bytes: chunk))
    }
    #expect(line.cutOffReason?.contains("credit") == true)
    _ = output
  }

  @Test func `between prepare and resume nothing is sent`() throws {
    let line = try Line()
    let promise = line.channel.eventLoop.makePromise(of: GuestMessage.self)
    line.handler.ask(.prepare(dropsCache: false), timeout: .seconds(3), promise: promise)
    #expect(try line.channel.readOutbound(as: ByteBuffer.self) != nil)
    let (output, continuation) = AsyncThrowingStream.makeStream(of: GuestCommand.Event.self)
    let started = line.channel.eventLoop.makePromise(of: GuestMessage.self)
    line.handler.start(
      GuestCommand.State(continuation), arguments: ["true"], environment: [], promise: started)
    #expect(try line.channel.readOutbound(as: ByteBuffer.self) == nil)

    line.handler.resume(epoch: Self.epoch)
    var decoder = FrameDecoder()
    while let bytes = try line.channel.readOutbound(as: ByteBuffer.self) {
      decoder.append(Array(buffer: bytes))
    }
    var sent: [GuestMessage] = []
    while case .frame(let frame) = decoder.next() { sent.append(try GuestMessage(frame, receiver: .guest)) }
    #expect(sent.first == .resume(epoch: Self.epoch))
    #expect(sent.count == 2)
    started.succeed(.done)
    _ = output
  }

  @Test func `a question is answered, fails with the guest's errno, or times out`() throws {
    let line = try Line()
    let loop = line.channel.embeddedEventLoop
    func ask() throws -> (EventLoopFuture<GuestMessage>, UInt32) {
      let promise = loop.makePromise(of: GuestMessage.self)
      line.handler.ask(.shutdown, timeout: .seconds(3), promise: promise)
      var decoder = FrameDecoder()
      decoder.append(Array(buffer: try #require(try line.channel.readOutbound(as: ByteBuffer.self))))
      guard case .frame(let frame) = decoder.next() else { throw GuestError.notConnected }
      return (promise.futureResult, frame.request)
    }
    let (answered, first) = try ask()
    try line.receive(.prepared(reason: nil, noteAddress: 4096, noteBytes: 1024), request: first)
    #expect(try answered.wait() == .prepared(reason: nil, noteAddress: 4096, noteBytes: 1024))

    let (refused, second) = try ask()
    try line.receive(.failed(errno: 12, message: "no memory"), request: second)
    #expect(throws: GuestError.self) { try refused.wait() }

    let (late, _) = try ask()
    loop.advanceTime(by: .seconds(4))
    #expect(throws: GuestError.self) { try late.wait() }
  }
}

extension [UInt8] {
  init(buffer: ByteBuffer) { self = Array(buffer.readableBytesView) }
}
