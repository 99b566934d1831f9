import BenchSupport
import Foundation
import Glibc
import GuestWire
import LinuxSystem

/// The host's end of a guest's agent port, as sfd would hold it: the proof that a guest is up is that it answers.
final class AgentLink {
  private static let epoch: UInt64 = 1
  private static let noAnswer = BenchError("the guest's agent does not answer")
  private let socket: OwnedDescriptor
  private var decoder = FrameDecoder()

  /// Connects to the port's socket, which may not be there yet, says hello, and returns when the agent has answered.
  init(path: String, timeoutSeconds: Double = 240) throws {
    let deadline = ContinuousClock.now + .seconds(timeoutSeconds)
    var connection: OwnedDescriptor?
    while connection == nil {
      connection = try? UnixSocket.connect(path: path)
      guard ContinuousClock.now < deadline else { throw BenchError("nobody listens at \(path)") }
      if connection == nil { usleep(1000) }
    }
    socket = connection!
    // A hello that got lost costs its sample five seconds and is told of, but not the whole measurement.
    for attempt in 1... {
      try send(
        .hello(.init(session: .random(in: 1 ..< .max), epoch: Self.epoch, hostTimeNanoseconds: Self.now())))
      let patience = min(deadline, ContinuousClock.now + .seconds(5))
      if try awaitWelcome(before: patience) {
        if attempt > 1 { say("  the agent answered hello \(attempt), none before") }
        return
      }
      guard ContinuousClock.now < deadline else { throw Self.noAnswer }
    }
  }

  private func awaitWelcome(before deadline: ContinuousClock.Instant) throws -> Bool {
    while let message = try receive(before: deadline) {
      if case .welcome = message { return true }
    }
    return false
  }

  /// Runs a command in the guest to its end and gives what it printed. Throws if its status is not 0.
  @discardableResult
  func execute(_ arguments: [String], timeoutSeconds: Double = 120) throws -> String {
    var (output, messages): ([UInt8], [UInt8]) = ([], [])
    let deadline = ContinuousClock.now + .seconds(timeoutSeconds)
    try send(.exec(.init(id: 1, arguments: arguments)), request: 1)
    while true {
      switch try receive(before: deadline) {
      case nil: throw Self.noAnswer
      case .execOutput(id: 1, let stream, let bytes):
        if stream == .output { output += bytes } else { messages += bytes }
      case .execExited(id: 1, let status):
        guard status == 0 else {
          throw BenchError(
            "\(arguments) ended with \(status) in the guest: \(String(decoding: messages, as: UTF8.self))")
        }
        return String(decoding: output, as: UTF8.self)
      case .failed(_, let message): throw BenchError("\(arguments) did not start in the guest: \(message)")
      default: continue
      }
    }
  }

  private func send(_ message: GuestMessage, request: UInt32 = 0) throws {
    let bytes = try Frame(message, epoch: Self.epoch, request: request).encoded()
    try bytes.withUnsafeBytes { try socket.writeFully($0) }
  }

  /// Nil: nothing came in time.
  private func receive(before deadline: ContinuousClock.Instant) throws -> GuestMessage? {
    var buffer = [UInt8](repeating: 0, count: 65536)
    while true {
      switch decoder.next() {
      case .frame(let frame): return try GuestMessage(frame, receiver: .host)
      case .violation: continue
      case .needMore: break
      }
      let left = (deadline - ContinuousClock.now) / .milliseconds(1)
      var entry = pollfd(fd: socket.raw, events: Int16(POLLIN), revents: 0)
      guard left > 0, poll(&entry, 1, CInt(left)) != 0 else { return nil }
      let count = try buffer.withUnsafeMutableBytes { try socket.read(into: $0) }
      guard count > 0 else { throw BenchError("the guest's machine ended before its agent answered") }
      decoder.append(Array(buffer[..<count]))
    }
  }

  private static func now() -> UInt64 { UInt64(Date().timeIntervalSince1970 * 1e9) }
}
