import GuestWire
import NIOCore

/// The host's end of one guest's channel: frames in and out, questions and their answers, commands in progress,
/// and the limits that a lying guest runs into. Everything here happens on the channel's event loop.
package final class GuestChannelHandler: ChannelInboundHandler {
  package typealias InboundIn = ByteBuffer
  package typealias OutboundOut = ByteBuffer

  /// Messages a second that a guest may send besides the output of commands, which has credit.
  static let messagesPerSecond = 2_000.0
  package static let messageBurst = 4_000.0

  let report: @Sendable (GuestEvent) -> Void
  private var epoch: UInt64
  private var decoder = FrameDecoder()
  /// A clone replays what lay in its buffers at the fork, cut anywhere: until the first message of its own epoch
  /// nothing it sends counts.
  private var settled = false
  private var nextRequest: UInt32 = 1
  private var questions: [UInt32: EventLoopPromise<GuestMessage>] = [:]
  private var commands: [UInt32: GuestCommand.State] = [:]
  /// Commands whose asker has gone and that are being ended; what they print is dropped.
  private var ending: Set<UInt32> = []
  /// Commands of the guest's processes in clones, by the request.
  var runs: [UInt32: GuestRun.State] = [:]
  private var allowance = GuestChannelHandler.messageBurst
  private var allowanceTime: NIODeadline = .now()
  /// Between `prepare` and `resume` nothing is sent: QEMU would put it into the guest's memory while its device state
  /// is being saved, and a clone would have the one without the other.
  private var held: [(message: GuestMessage, request: UInt32)]?
  private var context: ChannelHandlerContext?
  private var end: GuestError?

  package init(epoch: UInt64, report: @escaping @Sendable (GuestEvent) -> Void) {
    self.epoch = epoch
    self.report = report
  }

  // MARK: the channel's life

  package func handlerAdded(context: ChannelHandlerContext) { self.context = context }

  package func channelInactive(context: ChannelHandlerContext) {
    let first = end == nil
    finish(.closed)
    self.context = nil
    if first { report(.closed) }
  }

  package func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

  /// Ends all that waits. Only the first reason counts.
  private func finish(_ reason: GuestError) {
    if end == nil { end = reason }
    let waiting = questions
    questions = [:]
    for promise in waiting.values { promise.fail(end ?? reason) }
    let running = commands
    commands = [:]
    for command in running.values { command.fail(end ?? reason) }
    let asked = runs
    runs = [:]
    for run in asked.values { run.end() }
  }

  func close(_ reason: GuestError) {
    finish(reason)
    context?.close(promise: nil)
  }

  func cutOff(_ reason: String) {
    guard end == nil else { return }
    close(.cutOff(reason))
    report(.cutOff(reason: reason))
  }

  // MARK: in

  package func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    guard end == nil else { return }
    let buffer = unwrapInboundIn(data)
    buffer.withUnsafeReadableBytes { decoder.append($0) }
    while end == nil {
      switch decoder.next() {
      case .needMore: return
      case .violation(let violation):
        if settled { cutOff("a broken frame (\(violation))") }
      case .frame(let frame):
        guard frame.epoch == epoch else { continue }
        settled = true
        do {
          let message = try GuestMessage(frame, receiver: .host)
          if !takeRun(message, request: frame.request, loop: context.eventLoop) {
            take(message, request: frame.request)
          }
        } catch {
          cutOff("a message that does not decode (\(error))")
        }
      }
    }
  }

  private func take(_ message: GuestMessage, request: UInt32) {
    switch message {
    case .execOutput(let id, let stream, let bytes):
      guard let command = commands[id] else {
        // Ended here while it was on its way.
        if ending.contains(id) { send(.execCredit(id: id, stream: stream, bytes: UInt32(bytes.count))) }
        return
      }
      if !command.takeOutput(stream, bytes) { cutOff("command output beyond its credit") }
    case .execExited(let id, let status):
      ending.remove(id)
      commands.removeValue(forKey: id)?.exit(status)
    case .execCredit(let id, _, let bytes):
      guard let command = commands[id] else { return }
      if !command.addCredit(Int(bytes)) { cutOff("more credit than a window holds") }
      sendInput(of: command)
    case .welcome, .prepared, .identityTaken, .networkTaken, .execStarted:
      questions.removeValue(forKey: request)?.succeed(message)
    case .failed(let errno, let text):
      questions.removeValue(forKey: request)?.fail(GuestError.refused(errno: errno, text))
    default:
      guard spendAllowance() else {
        cutOff("more than \(Int(Self.messagesPerSecond)) messages a second")
        return
      }
      report(.request(request, message))
    }
  }

  func spendAllowance() -> Bool {
    let now = NIODeadline.now()
    let seconds = Double((now - allowanceTime).nanoseconds) / 1e9
    allowanceTime = now
    allowance = min(Self.messageBurst, allowance + seconds * Self.messagesPerSecond) - 1
    return allowance >= 0
  }

  // MARK: out

  func send(_ message: GuestMessage, request: UInt32 = 0) {
    if held != nil {
      held?.append((message, request))
    } else {
      write(message, request: request)
      if case .prepare = message { held = [] }
    }
  }

  /// After a fork: the guest goes on, then with what was held back.
  package func resume(epoch: UInt64) {
    let waiting = held ?? []
    held = nil
    write(.resume(epoch: epoch), request: 0)
    for (message, request) in waiting { write(message, request: request) }
  }

  private func write(_ message: GuestMessage, request: UInt32) {
    guard let context, end == nil else { return }
    do {
      let bytes = try Frame(message, epoch: epoch, request: request).encoded()
      context.writeAndFlush(wrapOutboundOut(context.channel.allocator.buffer(bytes: bytes)), promise: nil)
    } catch {
      // Only a field of ours beyond its limit: the asker is told by its own time-out or answer.
      questions.removeValue(forKey: request)?.fail(GuestError.unexpected("\(error)"))
    }
  }

  /// Sends and promises the answer.
  package func ask(_ message: GuestMessage, timeout: TimeAmount, promise: EventLoopPromise<GuestMessage>) {
    guard let context, end == nil else {
      promise.fail(end ?? GuestError.notConnected)
      return
    }
    let request = takeRequestNumber()
    questions[request] = promise
    let bound = NIOLoopBound(self, eventLoop: context.eventLoop)
    context.eventLoop.scheduleTask(in: timeout) {
      bound.value.questions.removeValue(forKey: request)?.fail(
        GuestError.timedOut(seconds: Int(timeout.nanoseconds / 1_000_000_000)))
    }
    send(message, request: request)
  }

  private func takeRequestNumber() -> UInt32 {
    defer { nextRequest = nextRequest == .max ? 1 : nextRequest + 1 }
    return nextRequest
  }

  // MARK: commands

  package func start(
    _ command: GuestCommand.State, arguments: [String], environment: [String],
    promise: EventLoopPromise<GuestMessage>
  ) {
    let id = takeRequestNumber()
    command.id = id
    commands[id] = command
    promise.futureResult.assumeIsolated().whenFailure { [self] _ in commands[id] = nil }
    ask(
      .exec(.init(id: id, arguments: arguments, environment: environment)), timeout: .seconds(20),
      promise: promise)
  }

  func sendInput(of command: GuestCommand.State) {
    for message in command.takeSendableInput() { send(message) }
  }

  /// The reader has taken `count` bytes of output: the guest may send as many more.
  func returnCredit(_ command: GuestCommand.State, _ stream: ExecStream, _ count: Int) {
    command.returned(stream, count)
    guard commands[command.id] != nil else { return }
    send(.execCredit(id: command.id, stream: stream, bytes: UInt32(count)))
  }

  /// The asker has gone: the command is hung up on.
  func abandon(_ command: GuestCommand.State) {
    guard commands.removeValue(forKey: command.id) != nil else { return }
    send(.execSignal(id: command.id, signal: 1))
  }

  /// The same, and a command that does not mind is killed. With what it has printed and nobody takes out of the way,
  /// the agent can see its end.
  func end(_ command: GuestCommand.State) {
    guard let context, commands[command.id] != nil else { return }
    let id = command.id
    for (stream, count) in command.unreturned where count > 0 {
      send(.execCredit(id: id, stream: stream, bytes: UInt32(count)))
    }
    abandon(command)
    ending.insert(id)
    let bound = NIOLoopBound(self, eventLoop: context.eventLoop)
    context.eventLoop.scheduleTask(in: Self.graceTime) {
      if bound.value.ending.contains(id) { bound.value.send(.execSignal(id: id, signal: 9)) }
    }
  }

  /// From the hang-up to the kill.
  private static let graceTime = TimeAmount.seconds(2)
}
