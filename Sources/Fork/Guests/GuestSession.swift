import GuestKernel
import GuestWire
import NIOCore
import NIOPosix

/// The daemon's connection to one guest's agent, over the Unix socket of the VM's virtio-serial port.
///
/// It is connected before a slot is activated, or the guest's reads return 0 in a loop.
final class GuestSession: Sendable {
  let vm: String
  /// In the order in which the guest sent them. One reader.
  let events: AsyncStream<GuestEvent>
  private let channel: any Channel
  private let handler: NIOLoopBound<GuestChannelHandler>

  private init(
    vm: String, events: AsyncStream<GuestEvent>, channel: any Channel,
    handler: NIOLoopBound<GuestChannelHandler>
  ) {
    self.vm = vm
    self.events = events
    self.channel = channel
    self.handler = handler
  }

  static func connect(
    vm: String, socketPath: String, epoch: UInt64, on loops: any EventLoopGroup
  ) async throws -> GuestSession {
    let (events, continuation) = AsyncStream.makeStream(of: GuestEvent.self)
    let (channel, handler) = try await ClientBootstrap(group: loops)
      .connect(unixDomainSocketPath: socketPath) { channel in
        channel.eventLoop.makeCompletedFuture {
          let handler = GuestChannelHandler(epoch: epoch) { event in
            continuation.yield(event)
            switch event {
            case .cutOff, .closed: continuation.finish()
            case .request, .run: break
            }
          }
          try channel.pipeline.syncOperations.addHandler(handler)
          return (channel, NIOLoopBound(handler, eventLoop: channel.eventLoop))
        }
      }
    return GuestSession(vm: vm, events: events, channel: channel, handler: handler)
  }

  /// Waits for the agent to answer: of a parent, that it has booted.
  func hello(session: UInt64, epoch: UInt64, hostTimeNanoseconds: UInt64, timeoutSeconds: Int) async throws
    -> GuestMessage.Welcome
  {
    let hello = GuestMessage.hello(
      .init(session: session, epoch: epoch, hostTimeNanoseconds: hostTimeNanoseconds))
    let deadline = ContinuousClock.now + .seconds(timeoutSeconds)
    // Said again: what came while the guest's kernel opened or closed the port may have been dropped there.
    while true {
      do {
        guard case .welcome(let welcome) = try await ask(hello, timeoutSeconds: 5) else {
          throw GuestError.unexpected("no welcome")
        }
        return welcome
      } catch GuestError.timedOut where ContinuousClock.now < deadline {
        continue
      } catch GuestError.timedOut {
        throw GuestError.timedOut(seconds: timeoutSeconds)
      }
    }
  }

  /// On return the agent holds back all it has to send, until `resume`, and with `dropsCache` the guest has given up its
  /// clean page cache. Answers where the guest's kernel describes its memory; nil: it does not, or free pages of it must
  /// not be taken for zeros.
  func prepare(dropsCache: Bool) async throws -> KernelNotePlace? {
    guard
      case .prepared(let reason, let address, let bytes) = try await ask(
        .prepare(dropsCache: dropsCache), timeoutSeconds: dropsCache ? 60 : 10)
    else {
      throw GuestError.unexpected("not prepared")
    }
    if let reason { throw GuestError.refused(errno: 0, reason) }
    return bytes == 0 ? nil : KernelNotePlace(address: address, bytes: bytes)
  }

  /// On return the device VM has its address and knows the family's names.
  func setUp(_ network: GuestMessage.Network) async throws {
    guard case .networkTaken(let reason) = try await ask(.network(network), timeoutSeconds: 10) else {
      throw GuestError.unexpected("no network taken")
    }
    if let reason { throw GuestError.refused(errno: 0, reason) }
  }

  func resume(epoch: UInt64) {
    let handler = handler
    channel.eventLoop.execute { handler.value.resume(epoch: epoch) }
  }

  /// On return the clone is itself: name, machine-id, clock, random numbers. Throws `.refused` if it could not.
  /// Answers how long its agent took, microseconds.
  ///
  /// A clone has what of its memory it touches: over a slow link that alone may take a minute. As long as `isFetching`
  /// says each 30 s that some has come since, it is waited for.
  func giveIdentity(
    _ identity: GuestMessage.Identity, while isFetching: @escaping @Sendable () async -> Bool
  ) async throws -> UInt64 {
    let answer = channel.eventLoop.makePromise(of: GuestMessage.self)
    let patience = Task {
      repeat {
        guard (try? await Task.sleep(for: .seconds(Self.identitySeconds))) != nil else { return }
      } while await isFetching()
      answer.fail(GuestError.timedOut(seconds: Self.identitySeconds))
    }
    defer { patience.cancel() }
    guard
      case .identityTaken(let taken) = try await ask(
        .identity(identity), timeoutSeconds: Self.identitySecondsMax, answer)
    else { throw GuestError.unexpected("no identity taken") }
    if let reason = taken.reason { throw GuestError.refused(errno: 0, reason) }
    return taken.microseconds
  }

  private static let identitySeconds = 30
  private static let identitySecondsMax = 900

  func answer(_ request: UInt32, _ message: GuestMessage) { send(message, request: request) }

  func shutdown() { send(.shutdown) }

  /// Starts a command. Throws `.refused` if the guest has no such program.
  func run(_ arguments: [String], environment: [String]) async throws -> GuestCommand {
    let (output, continuation) = AsyncThrowingStream.makeStream(of: GuestCommand.Event.self)
    let loop = channel.eventLoop
    let handler = handler
    let promise = loop.makePromise(of: GuestMessage.self)
    let state = try await loop.submit {
      let state = GuestCommand.State(continuation)
      handler.value.start(state, arguments: arguments, environment: environment, promise: promise)
      return NIOLoopBound(state, eventLoop: loop)
    }.get()
    _ = try await promise.futureResult.get()
    return GuestCommand(output: output, eventLoop: loop, state: state, handler: handler)
  }

  func close() {
    let handler = handler
    channel.eventLoop.execute { handler.value.close(.closed) }
  }

  private func ask(_ message: GuestMessage, timeoutSeconds: Int) async throws -> GuestMessage {
    try await ask(
      message, timeoutSeconds: timeoutSeconds, channel.eventLoop.makePromise(of: GuestMessage.self))
  }

  /// `promise` may fail meanwhile: the answer is then for nobody.
  private func ask(
    _ message: GuestMessage, timeoutSeconds: Int, _ promise: EventLoopPromise<GuestMessage>
  ) async throws -> GuestMessage {
    let handler = handler
    channel.eventLoop.execute {
      handler.value.ask(message, timeout: .seconds(Int64(timeoutSeconds)), promise: promise)
    }
    return try await promise.futureResult.get()
  }

  private func send(_ message: GuestMessage, request: UInt32 = 0) {
    let handler = handler
    channel.eventLoop.execute { handler.value.send(message, request: request) }
  }
}
