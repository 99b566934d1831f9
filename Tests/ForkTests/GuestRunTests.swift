import Fork
import GuestWire
import NIOCore
import NIOEmbedded
import Testing

/// Commands of a guest's processes in clones, the asker's end: credit both ways, ends, and guests that lie.
struct GuestRunTests {
  private static let window = GuestMessage.runInitialWindow
  private let line: GuestChannelTests.Line

  init() throws { line = try GuestChannelTests.Line() }

  private func begin(_ request: UInt32) throws -> GuestRun {
    try line.receive(.run(.init(clone: "dev.1", arguments: ["cat"])), request: request)
    guard case .run(let run) = line.events.last else {
      throw GuestError.unexpected("no command was reported")
    }
    return run
  }

  /// What was sent to the guest since the last call.
  private func sent() throws -> [GuestMessage] {
    var decoder = FrameDecoder()
    while let bytes = try line.channel.readOutbound(as: ByteBuffer.self) {
      decoder.append(Array(buffer: bytes))
    }
    var messages: [GuestMessage] = []
    while case .frame(let frame) = decoder.next() {
      #expect(frame.request == 5)
      messages.append(try GuestMessage(frame, receiver: .guest))
    }
    return messages
  }

  private func next(_ run: GuestRun) -> EventLoopFuture<GuestRun.Input?> {
    let promise = line.channel.eventLoop.makePromise(of: GuestRun.Input?.self)
    line.handler.takeInput(of: run.state.value, promise)
    return promise.futureResult
  }

  private func print(_ bytes: [UInt8], _ stream: ExecStream, of run: GuestRun) -> EventLoopFuture<Void> {
    let promise = line.channel.eventLoop.makePromise(of: Void.self)
    run.state.value.queue(stream, bytes, promise)
    line.handler.sendOutput(of: run.state.value)
    return promise.futureResult
  }

  @Test func `input comes in order, and what was used is credit again`() throws {
    let run = try begin(5)
    #expect(run.command.clone == "dev.1")
    let first = next(run)
    try line.receive(.runInput(bytes: [1]), request: 5)
    try line.receive(.runSignal(signal: 15), request: 5)
    try line.receive(.runInput(bytes: Array(repeating: 2, count: Self.window - 1)), request: 5)
    try line.receive(.runInputClosed, request: 5)
    #expect(try first.wait() == .bytes([1]))
    #expect(try next(run).wait() == .signal(15))
    #expect(try next(run).wait() == .bytes(Array(repeating: 2, count: Self.window - 1)))
    #expect(try sent().isEmpty)
    #expect(try next(run).wait() == .closed)
    #expect(try sent() == [.runCredit(stream: .input, bytes: UInt32(Self.window))])
    let end = next(run)
    try line.receive(.cancel, request: 5)
    #expect(try end.wait() == nil)
    #expect(line.cutOffReason == nil && line.requests.isEmpty)
  }

  @Test func `output waits for credit, and what is too late goes nowhere`() throws {
    let run = try begin(5)
    let bytes = [UInt8](repeating: 7, count: Self.window + 100)
    let printed = print(bytes, .output, of: run)
    #expect(try sent() == [.runOutput(stream: .output, bytes: Array(bytes.prefix(Self.window)))])
    try line.receive(.runCredit(stream: .output, bytes: UInt32(Self.window)), request: 5)
    try printed.wait()
    #expect(try sent() == [.runOutput(stream: .output, bytes: Array(bytes.suffix(100)))])
    line.handler.end(run.state.value, with: .runExited(status: 3))
    #expect(try sent() == [.runExited(status: 3)])
    line.handler.end(run.state.value, with: .failed(errno: 5, message: "too late"))
    #expect(try sent().isEmpty)
    #expect(throws: GuestError.self) { try print([1], .error, of: run).wait() }
    // What was on its way is no lie.
    try line.receive(.runInput(bytes: [1]), request: 5)
    try line.receive(.runCredit(stream: .output, bytes: 1 << 30), request: 5)
    #expect(line.cutOffReason == nil)
  }

  @Test func `the channel's end is the command's`() throws {
    let run = try begin(5)
    let waiting = next(run)
    let printed = print([UInt8](repeating: 7, count: Self.window + 1), .error, of: run)
    try line.channel.close().wait()
    #expect(try waiting.wait() == nil)
    #expect(throws: GuestError.self) { try printed.wait() }
  }

  @Test func `more commands than the limit are refused, and the others go on`() throws {
    for request in 100..<100 + UInt32(GuestMessage.runLimit) {
      try line.receive(.run(.init(clone: "dev.1", arguments: ["cat"])), request: request)
    }
    try line.receive(.run(.init(clone: "dev.1", arguments: ["cat"])), request: 5)
    #expect(
      try sent() == [.failed(errno: 11, message: "128 commands run in clones; wait for one to end")])
    try line.receive(.cancel, request: 100)
    _ = try begin(5)
    #expect(line.events.count == GuestMessage.runLimit + 1 && line.cutOffReason == nil)
  }

  private static let lies: [(what: String, messages: [GuestMessage])] = [
    ("input", [.runInput(bytes: .init(repeating: 1, count: window)), .runInput(bytes: [1])]),
    ("input", [.runInputClosed, .runInput(bytes: [1])]),
    ("input", [.runInput(bytes: [])]),
    ("input", [.runInputClosed, .runInputClosed]),
    ("number", [.run(.init(clone: "dev.1", arguments: ["cat"]))]),
    ("credit", [.runCredit(stream: .output, bytes: 1)]),
    ("credit", [.runCredit(stream: .output, bytes: .max)]),
    ("credit", [.runCredit(stream: .input, bytes: 1)]),
    ("credit", [.runCredit(stream: .error, bytes: 0)]),
    ("signal", [.runSignal(signal: 0)]),
    ("signal", .init(repeating: .runSignal(signal: 10), count: 2 * Int(GuestChannelHandler.messageBurst))),
  ]

  @Test(arguments: lies) func `what no honest agent sends cuts it off`(
    lie: (what: String, messages: [GuestMessage])
  )
    throws
  {
    let run = try begin(5)
    let waiting = next(run)
    for message in lie.messages where line.channel.isActive { try line.receive(message, request: 5) }
    #expect(line.cutOffReason?.contains(lie.what) == true, "\(line.cutOffReason ?? "nothing")")
    _ = try waiting.wait()
    #expect(try next(run).wait() == nil)
  }
}
