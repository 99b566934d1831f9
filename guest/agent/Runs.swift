import CGuest
import Glibc
import GuestWire

/// Commands that this guest's processes run in clones of its VM, by the number of the request.
///
/// The agent passes on and holds nothing: a process may send what the host has given credit for, and the host gets
/// credit when the process has taken what came. So a process that breaks the rules is hung up on here, and the VM is
/// not taken for a liar.
final class Runs {
  private final class Run {
    let client: LocalClient
    var inputCredit = GuestMessage.runInitialWindow
    var inputIsClosed = false
    /// Output that the host has no credit back for yet.
    var taken: [ExecStream: Int] = [:]

    init(_ client: LocalClient) { self.client = client }
  }

  /// A storm of signals is thinned here: they say no more together.
  private static let signalsPerSecond = 100

  private let port: HostPort
  private let requests: Requests
  private var running: [UInt32: Run] = [:]
  private var signals = (second: UInt64(0), count: 0)

  init(port: HostPort, requests: Requests) {
    self.port = port
    self.requests = requests
  }

  // MARK: - The process

  /// `strings`: the clone's name, the arguments and the environment, each with its NUL.
  func start(_ client: LocalClient, _ request: sf_agent_request, strings: [UInt8]) {
    guard running.count < GuestMessage.runLimit else {
      return client.fail(EAGAIN, "\(running.count) commands run in clones; wait for one to end")
    }
    let message: GuestMessage
    do {
      message = .run(try Self.parse(request, strings))
      _ = try message.encodedBody()
    } catch is GuestWireError {
      return client.fail(E2BIG, "the command is too long")
    } catch {
      return client.fail(EINVAL, "the command is not as it should be")
    }
    let number = requests.takeNumber()
    let run = Run(client)
    running[number] = run
    client.onMore = { [unowned self] in more(number, $0, $1) }
    client.onDrained = { [unowned self] in returnCredit(number) }
    port.send(message, request: number)
  }

  private struct Malformed: Error {}

  private static func parse(_ request: sf_agent_request, _ bytes: [UInt8]) throws -> GuestMessage.Run {
    guard bytes.last == 0, request.number > 0, request.flag >= 0 else { throw Malformed() }
    var strings: [String] = []
    for piece in bytes.dropLast().split(separator: 0, omittingEmptySubsequences: false) {
      let string = String(decoding: piece, as: UTF8.self)
      guard string.utf8.elementsEqual(piece) else { throw Malformed() }
      strings.append(string)
    }
    let arguments = Int(request.number)
    guard strings.count == 1 + arguments + Int(request.flag) else { throw Malformed() }
    return GuestMessage.Run(
      clone: strings[0], arguments: Array(strings[1...arguments]),
      environment: Array(strings[(1 + arguments)...]))
  }

  private func more(_ number: UInt32, _ request: sf_agent_request, _ bytes: [UInt8]) {
    guard let run = running[number] else { return }  // it has ended meanwhile
    switch Int(request.type) {
    case SF_AGENT_RUN_INPUT where bytes.isEmpty:
      if !run.inputIsClosed { port.send(.runInputClosed, request: number) }
      run.inputIsClosed = true
    case SF_AGENT_RUN_INPUT where bytes.count <= run.inputCredit && !run.inputIsClosed:
      run.inputCredit -= bytes.count
      port.send(.runInput(bytes: bytes), request: number)
    case SF_AGENT_RUN_SIGNAL where (1...64).contains(request.number):
      if maySignal() { port.send(.runSignal(signal: request.number), request: number) }
    default:
      run.client.end()
    }
  }

  private func maySignal() -> Bool {
    let second = monotonicMicroseconds() / 1_000_000
    if signals.second != second { signals = (second, 0) }
    signals.count += 1
    return signals.count <= Self.signalsPerSecond
  }

  /// The process went away: so does its command.
  func cancel(_ client: LocalClient) {
    for (number, run) in running where run.client === client {
      running[number] = nil
      port.send(.cancel, request: number)
    }
  }

  // MARK: - The host

  func output(_ number: UInt32, _ stream: ExecStream, _ bytes: [UInt8]) {
    guard let run = running[number], stream != .input else { return }
    run.taken[stream, default: 0] += bytes.count
    var answer = sf_agent_answer()
    answer.type = UInt16(SF_AGENT_RUN_OUTPUT)
    answer.how = Int32(stream.rawValue)
    run.client.send(answer, result: bytes)
  }

  /// Once the process has taken all of it. A quarter of a window at least, so that credit does not take more
  /// messages than output.
  private func returnCredit(_ number: UInt32) {
    guard let run = running[number] else { return }
    for (stream, count) in run.taken where count >= GuestMessage.runInitialWindow / 4 {
      run.taken[stream] = 0
      port.send(.runCredit(stream: stream, bytes: UInt32(count)), request: number)
    }
  }

  func credit(_ number: UInt32, _ bytes: UInt32) {
    guard let run = running[number] else { return }
    run.inputCredit = min(run.inputCredit + Int(bytes), GuestMessage.runInitialWindow)
    var answer = sf_agent_answer()
    answer.type = UInt16(SF_AGENT_RUN_CREDIT)
    answer.count = bytes
    run.client.send(answer)
  }

  func exited(_ number: UInt32, _ status: Int32) {
    guard let run = running.removeValue(forKey: number) else { return }
    var answer = sf_agent_answer()
    answer.status = status
    run.client.finish(answer)
  }

  /// Whether there is such a command.
  func fail(_ number: UInt32, _ code: Int32, _ message: String) -> Bool {
    guard let run = running.removeValue(forKey: number) else { return false }
    run.client.fail(code, message)
    return true
  }

  func failAll(_ code: Int32, _ message: String) {
    for number in Array(running.keys) { _ = fail(number, code, message) }
  }
}
