import GuestWire
import NIOCore

/// A command that runs in a guest (`sfctl exec`). Output is read from `output`; what was read is to be returned as
/// credit with `consumed`, or the guest's side stops after a window of `GuestMessage.execInitialWindow` bytes.
package struct GuestCommand: Sendable {
  package enum Event: Sendable {
    case output(ExecStream, [UInt8])
    case exited(Int32)
  }

  let output: AsyncThrowingStream<Event, any Error>
  let eventLoop: any EventLoop
  let state: NIOLoopBound<State>
  let handler: NIOLoopBound<GuestChannelHandler>

  /// Returns when the guest has had room for it, so that a fast writer waits for a slow reader.
  func write(_ bytes: [UInt8]) async throws {
    let promise = eventLoop.makePromise(of: Void.self)
    eventLoop.execute {
      state.value.queue(bytes, promise)
      handler.value.sendInput(of: state.value)
    }
    try await promise.futureResult.get()
  }

  func closeInput() {
    eventLoop.execute {
      state.value.closeInput()
      handler.value.sendInput(of: state.value)
    }
  }

  func signal(_ number: Int32) {
    eventLoop.execute { handler.value.send(.execSignal(id: state.value.id, signal: number)) }
  }

  func consumed(_ stream: ExecStream, _ count: Int) {
    eventLoop.execute { handler.value.returnCredit(state.value, stream, count) }
  }

  /// Hangs up on it.
  func abandon() {
    eventLoop.execute { handler.value.abandon(state.value) }
  }

  /// Hangs up on it, and kills it if that does not end it.
  func end() {
    eventLoop.execute { handler.value.end(state.value) }
  }
}

extension GuestCommand {
  /// The event loop's part of a command.
  package final class State {
    var id: UInt32 = 0
    private let continuation: AsyncThrowingStream<Event, any Error>.Continuation
    private var input: [(bytes: ArraySlice<UInt8>, written: EventLoopPromise<Void>)] = []
    private var inputCredit = GuestMessage.execInitialWindow
    private var inputEnds = false
    private var inputEnded = false
    private var outputCredit: [ExecStream: Int] = [
      .output: GuestMessage.execInitialWindow, .error: GuestMessage.execInitialWindow,
    ]

    package init(_ continuation: AsyncThrowingStream<Event, any Error>.Continuation) {
      self.continuation = continuation
    }

    /// False: the guest sent more than it had credit for.
    func takeOutput(_ stream: ExecStream, _ bytes: [UInt8]) -> Bool {
      guard let credit = outputCredit[stream], bytes.count <= credit, !bytes.isEmpty else { return false }
      outputCredit[stream] = credit - bytes.count
      continuation.yield(.output(stream, bytes))
      return true
    }

    /// Output that the guest has no credit back for.
    var unreturned: [(ExecStream, Int)] {
      outputCredit.map { ($0.key, GuestMessage.execInitialWindow - $0.value) }
    }

    func returned(_ stream: ExecStream, _ count: Int) { outputCredit[stream, default: 0] += count }

    func exit(_ status: Int32) {
      continuation.yield(.exited(status))
      continuation.finish()
      failInput(.closed)
    }

    func fail(_ error: GuestError) {
      continuation.finish(throwing: error)
      failInput(error)
    }

    private func failInput(_ error: GuestError) {
      let waiting = input
      input = []
      inputEnded = true
      for entry in waiting { entry.written.fail(error) }
    }

    func queue(_ bytes: [UInt8], _ written: EventLoopPromise<Void>) {
      guard !inputEnded, !inputEnds else {
        written.fail(GuestError.closed)
        return
      }
      input.append((bytes[...], written))
    }

    func closeInput() { inputEnds = true }

    /// False: the guest gave more than the window holds.
    func addCredit(_ count: Int) -> Bool {
      inputCredit += count
      return inputCredit <= GuestMessage.execInitialWindow
    }

    /// The messages that credit allows now, input in order and then its end.
    func takeSendableInput() -> [GuestMessage] {
      var messages: [GuestMessage] = []
      while inputCredit > 0, let first = input.first {
        let chunk = first.bytes.prefix(min(inputCredit, GuestMessage.execChunkLimit))
        if !chunk.isEmpty { messages.append(.execInput(id: id, bytes: Array(chunk))) }
        inputCredit -= chunk.count
        input[0].bytes = first.bytes.dropFirst(chunk.count)
        if input[0].bytes.isEmpty {
          input[0].written.succeed()
          input.removeFirst()
        }
      }
      if inputEnds, !inputEnded, input.isEmpty {
        inputEnded = true
        messages.append(.execInputClosed(id: id))
      }
      return messages
    }
  }
}
