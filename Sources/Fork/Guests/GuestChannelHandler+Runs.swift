import Glibc
import GuestWire
import NIOCore

/// Commands that processes of the guest run in clones of its VM.
extension GuestChannelHandler {
  /// Whether the message is about one, and was taken.
  func takeRun(_ message: GuestMessage, request: UInt32, loop: any EventLoop) -> Bool {
    switch message {
    case .run(let command):
      begin(command, request: request, loop: loop)
    case .runInput(let bytes):
      take(.bytes(bytes), request)
    case .runInputClosed:
      take(.closed, request)
    case .runSignal(let number):
      guard spendAllowance(), (1...64).contains(number) else {
        cutOff("a signal that there is not, or signals without end")
        return true
      }
      take(.signal(number), request)
    case .runCredit(let stream, let bytes):
      guard let run = runs[request] else { return true }  // ended here while it was on its way
      // An agent gives credit in large pieces: small ones count as messages.
      let isLarge = Int(bytes) >= GuestMessage.runInitialWindow / 4
      guard isLarge || spendAllowance(), run.addCredit(stream, Int(bytes)) else {
        cutOff("credit that is not as it should be")
        return true
      }
      sendOutput(of: run)
    case .cancel where runs[request] != nil:
      runs.removeValue(forKey: request)?.end()
    default:
      return false
    }
    return true
  }

  private func begin(_ command: GuestMessage.Run, request: UInt32, loop: any EventLoop) {
    guard spendAllowance() else {
      return cutOff("more than \(Int(Self.messagesPerSecond)) messages a second")
    }
    guard runs[request] == nil else { return cutOff("a command with a number that is in use") }
    guard runs.count < GuestMessage.runLimit else {
      send(
        .failed(errno: EAGAIN, message: "\(runs.count) commands run in clones; wait for one to end"),
        request: request)
      return
    }
    let state = GuestRun.State(request: request)
    runs[request] = state
    report(
      .run(
        GuestRun(
          command: command, eventLoop: loop, state: NIOLoopBound(state, eventLoop: loop),
          handler: NIOLoopBound(self, eventLoop: loop))))
  }

  private func take(_ piece: GuestRun.Input, _ request: UInt32) {
    guard let run = runs[request] else { return }  // ended here while it was on its way
    if !run.take(piece) { cutOff("command input beyond its credit") }
  }

  package func takeInput(of run: GuestRun.State, _ promise: EventLoopPromise<GuestRun.Input?>) {
    let credit = run.wait(promise)
    if credit > 0 { send(.runCredit(stream: .input, bytes: UInt32(credit)), request: run.request) }
  }

  package func sendOutput(of run: GuestRun.State) {
    for message in run.takeSendableOutput() { send(message, request: run.request) }
  }

  /// Only the first end counts.
  package func end(_ run: GuestRun.State, with message: GuestMessage) {
    guard runs[run.request] === run else { return }
    runs[run.request] = nil
    send(message, request: run.request)
    run.end()
  }
}
