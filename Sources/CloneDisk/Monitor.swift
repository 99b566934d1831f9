import Foundation
import LinuxSystem
import Synchronization

/// A connection to a QMP monitor (QEMU, docs/interop/qmp-spec): one command at a time, answered before the next.
final class Monitor: Sendable {
  private struct State: ~Copyable {
    let socket: OwnedDescriptor
    var received: [UInt8] = []
  }
  private let state: Mutex<State>

  /// Throws if nobody listens at the path, or what listens is no monitor.
  init(path: String) throws {
    state = Mutex(State(socket: try UnixSocket.connect(path: path)))
    try state.withLock { state in
      guard try Self.line(&state)["QMP"] != nil else { throw DiskError("\(path) is no QMP monitor") }
      _ = try Self.command(&state, "qmp_capabilities", [:])
    }
  }

  /// QEMU's answer. Throws `Refused` with QEMU's words, `Gone` or `SystemError` if the other end is gone.
  @discardableResult
  func run(_ name: String, _ arguments: JSONValue = [:]) throws -> JSONValue {
    try state.withLock { try Self.command(&$0, name, arguments) }
  }

  /// The other end has closed.
  var isGone: Bool {
    state.withLock { state in
      // Not by reading: what it had to say before it died comes first.
      var event = pollfd(fd: state.socket.raw, events: 0, revents: 0)
      return poll(&event, 1, 0) > 0 && Int32(event.revents) & (POLLHUP | POLLERR) != 0
    }
  }

  struct Refused: Error, CustomStringConvertible {
    var command: String
    var description: String
    /// For those who do not know of commands.
    var asDiskError: DiskError { DiskError("the storage daemon refused \(command): \(description)") }
  }
  struct Gone: Error {}

  private static func command(
    _ state: inout State, _ name: String, _ arguments: JSONValue
  ) throws -> JSONValue {
    let request: JSONValue = ["execute": .string(name), "arguments": arguments]
    try (JSONEncoder().encode(request) + [10]).withUnsafeBytes { try state.socket.writeFully($0) }
    while true {
      let answer = try line(&state)
      if let result = answer["return"] { return result }
      if let error = answer["error"] {
        throw Refused(command: name, description: error["desc"]?.string ?? "it gave no reason")
      }
    }
  }

  private static func line(_ state: inout State) throws -> JSONValue {
    while true {
      if let end = state.received.firstIndex(of: 10) {
        let line = Data(state.received[..<end])
        state.received.removeSubrange(...end)
        return try JSONDecoder().decode(JSONValue.self, from: line)
      }
      var buffer = [UInt8](repeating: 0, count: 1 << 16)
      let count = read(state.socket.raw, &buffer, buffer.count)
      if count < 0, errno == EINTR { continue }
      guard count > 0 else { throw Gone() }
      state.received += buffer[..<count]
    }
  }
}
