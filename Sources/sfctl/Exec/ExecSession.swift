import Foundation
import GRPCCore
import Wire

/// A command in a guest, connected to our own standard streams.
///
///     stdin ──► StandardInput ──┐                    ┌──► StandardOutput ──► stdout, stderr
///                               ├─► Exec (gRPC) ─────┤
///     signals ─► ForwardedSignals                    └──► exit status
///
/// Nothing is read ahead in either direction: a stream that is not taken holds up its sender.
struct ExecSession: Sendable {
  private let input: StandardInput
  private let output = StandardOutput()
  /// Where the command's standard output goes.
  var outputStream = StandardOutput.Stream.output
  /// What the daemon says on the command's standard error, and nobody else, where it could not be started: it is not
  /// shown, and thrown as `NotStarted`. Nil: it is shown, and the status is as a shell's.
  var notStartedPrefix: String?
  /// A line of the command's standard error that is for us and is not shown; nil: all is shown.
  var mark: String?
  private let signals = ForwardedSignals()

  /// From here on signals are kept for the command.
  init() throws { input = try StandardInput() }

  /// The command's own status; 128 + signal if it was ended by one.
  func run(_ start: Snowfork_V1_ExecInput.Start, _ client: Daemon.Client) async throws -> Int32 {
    try await runMarked(start, client).status
  }

  /// And the marked line, without its mark; nil: none came.
  func runMarked(
    _ start: Snowfork_V1_ExecInput.Start, _ client: Daemon.Client
  ) async throws -> (status: Int32, line: Data?) {
    try await client.exec(
      options: Daemon.options,
      requestProducer: { writer in
        try await writer.write(.with { $0.start = start })
        // Ends by cancellation, when the answer has ended.
        try await withThrowingTaskGroup(of: Void.self) { group in
          group.addTask { try await sendInput(writer) }
          group.addTask { try await sendSignals(writer) }
          try await group.waitForAll()
        }
      },
      onResponse: { response in
        var held: Data?
        var marked = mark.map { MarkedLine($0) }
        for try await message in response.messages {
          if let text = held, case .exitStatus = message.kind {
            throw NotStarted(message: String(decoding: text, as: UTF8.self))
          }
          if let text = held {
            try await output.write(text, to: .error)
            held = nil
          }
          switch message.kind {
          case .stdout(let bytes): try await output.write(bytes, to: outputStream)
          case .stderr(let bytes) where notStartedPrefix.map { bytes.starts(with: Data($0.utf8)) } == true:
            held = bytes
          case .stderr(let bytes): try await show(marked?.pass(bytes) ?? bytes)
          case .exitStatus(let status):
            if let rest = marked?.end() { try await show(rest) }
            return (status, marked?.line)
          case nil: break  // a kind that a newer daemon sends
          }
        }
        throw Failure("the command's status did not come: the VM has ended meanwhile. Try “sfctl ps --all”.")
      })
  }

  private func show(_ bytes: Data) async throws {
    if !bytes.isEmpty { try await output.write(bytes, to: .error) }
  }

  /// The daemon's words for why the guest could not start the command.
  struct NotStarted: Error { var message: String }

  private func sendInput(_ writer: RPCWriter<Snowfork_V1_ExecInput>) async throws {
    while let bytes = try await input.next() {
      try await writer.write(.with { $0.stdin = bytes })
    }
    try await writer.write(.with { $0.stdinClosed = true })
  }

  private func sendSignals(_ writer: RPCWriter<Snowfork_V1_ExecInput>) async throws {
    for await signal in signals.stream {
      try await writer.write(.with { $0.signal = signal })
    }
  }
}
