import Foundation
import GRPCCore
import Wire

/// The other end of `sfctl exec`: a few commands, played from memory.
struct FakeGuest {
  private let response: RPCWriter<Snowfork_V1_ExecOutput>
  init(_ response: RPCWriter<Snowfork_V1_ExecOutput>) { self.response = response }

  func serve(_ input: RPCAsyncSequence<Snowfork_V1_ExecInput, any Error>) async throws {
    var messages = input.makeAsyncIterator()
    guard case .start(let start) = try await messages.next()?.kind else {
      throw RPCError(code: .invalidArgument, message: "the first message is no start.")
    }
    guard start.name == "dev" || start.name == "old" else {
      throw RPCError(
        code: .notFound, message: "cannot run a command in \(start.name): no such VM. Try “sfctl ps”.")
    }
    switch start.arguments[0] {
    case "cat":
      while let message = try await messages.next(), message.kind != .stdinClosed(true) {
        if case .stdin(let bytes) = message.kind { try await response.write(.with { $0.stdout = bytes }) }
      }
      try await end(0)
    case "echo":
      let words = start.arguments.dropFirst() + start.environment
      try await response.write(.with { $0.stdout = Data((words.joined(separator: " ") + "\n").utf8) })
      try await response.write(.with { $0.stderr = Data("to stderr\n".utf8) })
      try await end(0)
    case "exit":
      try await end(Int32(start.arguments[1])!)
    case "flood":
      // Without end: only a reader that goes away, or a signal, ends it.
      while true { try await response.write(.with { $0.stdout = Data(repeating: 0x79, count: 32 << 10) }) }
    case "await-signal":
      try await response.write(.with { $0.stdout = Data("ready\n".utf8) })
      while let message = try await messages.next() {
        if case .signal(let number) = message.kind { return try await end(128 + number) }
      }
    case "mpiexec.hydra":
      try await response.write(
        .with { $0.stdout = Data((start.arguments.joined(separator: " ") + "\n").utf8) })
      if start.arguments.last == "lost" { throw RPCError(code: .unknown, message: "the VM is lost.") }
      while start.arguments.last == "await-signal", let message = try await messages.next() {
        if case .signal(let number) = message.kind { return try await end(128 + number) }
      }
      try await end(9)
    case "/usr/bin/sf-offload", "sh":
      try await FakeOffload(response).serve(start, &messages)
    case "vanish":
      break
    default:
      throw RPCError(code: .failedPrecondition, message: "cannot run \(start.arguments[0]): it is not there.")
    }
  }

  private func end(_ status: Int32) async throws {
    try await response.write(.with { $0.exitStatus = status })
  }
}
