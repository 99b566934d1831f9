import GuestWire
import NIOCore

/// A command that a process of a guest runs in a clone of its VM: the asker's end of it.
///
/// What comes from the process is taken with `next`, what the command prints is given to `output`; both keep to the
/// windows of `GuestMessage.runInitialWindow`. It is over when `exited` or `fail` was called, or the process has gone.
package struct GuestRun: Sendable {
  package enum Input: Sendable, Equatable {
    case bytes([UInt8])
    case closed
    case signal(Int32)
  }

  package let command: GuestMessage.Run
  let eventLoop: any EventLoop
  package let state: NIOLoopBound<State>
  let handler: NIOLoopBound<GuestChannelHandler>

  /// The next of what the process sends; nil once it has gone, or the task was cancelled. One caller at a time. What was
  /// taken before counts as used up, and the process may send as much more.
  package func next() async -> Input? {
    let promise = eventLoop.makePromise(of: Input?.self)
    return await withTaskCancellationHandler {
      eventLoop.execute { handler.value.takeInput(of: state.value, promise) }
      return try? await promise.futureResult.get()
    } onCancel: {
      eventLoop.execute { state.value.stopWaiting() }
    }
  }

  /// Returns when the process's side has had room for it; throws if it has gone.
  package func output(_ stream: ExecStream, _ bytes: [UInt8]) async throws {
    guard !bytes.isEmpty else { return }
    let promise = eventLoop.makePromise(of: Void.self)
    eventLoop.execute {
      state.value.queue(stream, bytes, promise)
      handler.value.sendOutput(of: state.value)
    }
    try await promise.futureResult.get()
  }

  package func exited(_ status: Int32) {
    eventLoop.execute { handler.value.end(state.value, with: .runExited(status: status)) }
  }

  package func fail(errno: Int32, _ message: String) {
    eventLoop.execute { handler.value.end(state.value, with: .failed(errno: errno, message: message)) }
  }

  /// Calls `body` when it is over, for whatever reason.
  func whenOver(_ body: @escaping @Sendable () -> Void) {
    eventLoop.execute { state.value.whenOver(body) }
  }
}

extension GuestRun {
  /// The event loop's part of it.
  package final class State {
    let request: UInt32
    private var input: [Input] = []
    private var waiter: EventLoopPromise<Input?>?
    private var inputCredit = GuestMessage.runInitialWindow
    private var inputIsClosed = false
    /// Bytes that `next` has given out and the process has no credit back for.
    private var used = 0
    private var waitingSignals = 0
    private var output: [(stream: ExecStream, bytes: ArraySlice<UInt8>, sent: EventLoopPromise<Void>)] = []
    private var outputCredit: [ExecStream: Int] = [
      .output: GuestMessage.runInitialWindow, .error: GuestMessage.runInitialWindow,
    ]
    private var isOver = false
    private var isNotTaken = false
    private var overHandlers: [@Sendable () -> Void] = []
    /// Signals that wait behind input which nobody takes: more say nothing.
    private static let signalLimit = 64

    init(request: UInt32) { self.request = request }

    // MARK: from the process

    /// False: it sent what it had no credit for.
    func take(_ piece: Input) -> Bool {
      switch piece {
      case .bytes(let bytes):
        guard !inputIsClosed, !bytes.isEmpty, bytes.count <= inputCredit else { return false }
        inputCredit -= bytes.count
      case .closed:
        guard !inputIsClosed else { return false }
        inputIsClosed = true
      case .signal:
        guard waitingSignals < Self.signalLimit else { return true }
        waitingSignals += 1
      }
      if let waiter {
        self.waiter = nil
        give(piece, to: waiter)
      } else {
        input.append(piece)
      }
      return true
    }

    /// Fulfils the promise, now or with the next piece. Credit to send to the process: 0 for none.
    func wait(_ promise: EventLoopPromise<Input?>) -> Int {
      let returned = input.isEmpty || used >= GuestMessage.runInitialWindow / 4 ? used : 0
      used -= returned
      inputCredit += returned
      if !input.isEmpty {
        give(input.removeFirst(), to: promise)
      } else if isOver || isNotTaken {
        promise.succeed(nil)
      } else {
        waiter = promise
      }
      return isOver ? 0 : returned
    }

    private func give(_ piece: Input, to promise: EventLoopPromise<Input?>) {
      if case .bytes(let bytes) = piece { used += bytes.count }
      if case .signal = piece { waitingSignals -= 1 }
      promise.succeed(piece)
    }

    /// For good, since it may come before what it is to stop.
    func stopWaiting() {
      isNotTaken = true
      waiter?.succeed(nil)
      waiter = nil
    }

    // MARK: to the process

    package func queue(_ stream: ExecStream, _ bytes: [UInt8], _ sent: EventLoopPromise<Void>) {
      guard !isOver else {
        sent.fail(GuestError.closed)
        return
      }
      output.append((stream, bytes[...], sent))
    }

    /// The messages that credit allows now, in order.
    func takeSendableOutput() -> [GuestMessage] {
      var messages: [GuestMessage] = []
      while let first = output.first, let credit = outputCredit[first.stream], credit > 0 {
        let chunk = first.bytes.prefix(min(credit, GuestMessage.execChunkLimit))
        outputCredit[first.stream] = credit - chunk.count
        messages.append(.runOutput(stream: first.stream, bytes: Array(chunk)))
        output[0].bytes = first.bytes.dropFirst(chunk.count)
        if output[0].bytes.isEmpty { output.removeFirst().sent.succeed() }
      }
      return messages
    }

    /// False: more than the window holds, or nothing.
    func addCredit(_ stream: ExecStream, _ count: Int) -> Bool {
      guard let credit = outputCredit[stream], count > 0 else { return false }
      outputCredit[stream] = credit + count
      return credit + count <= GuestMessage.runInitialWindow
    }

    // MARK: the end

    func whenOver(_ body: @escaping @Sendable () -> Void) {
      if isOver { body() } else { overHandlers.append(body) }
    }

    func end() {
      guard !isOver else { return }
      isOver = true
      let handlers = overHandlers
      overHandlers = []
      for handler in handlers { handler() }
      input = []
      stopWaiting()
      let unsent = output
      output = []
      for entry in unsent { entry.sent.fail(GuestError.closed) }
    }
  }
}
