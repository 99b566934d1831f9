import Foundation
import GRPCCore
import Wire

/// A guest's sf-offload, played: the program that is asked for says what becomes of it.
struct FakeOffload {
  static let report =
    #"{"bytes_home":4096,"bytes_out":2097152,"calls":3,"conflicts":0,"forward_us":265000,"#
    + #""merge_us":1400,"offloaded":2,"program_status":7,"ran_at_home":1,"run_us":77000,"why":"a field of its own"}"#

  private let response: RPCWriter<Snowfork_V1_ExecOutput>
  init(_ response: RPCWriter<Snowfork_V1_ExecOutput>) { self.response = response }

  func serve(
    _ start: Snowfork_V1_ExecInput.Start,
    _ messages: inout RPCAsyncSequence<Snowfork_V1_ExecInput, any Error>.AsyncIterator
  ) async throws {
    if start.name == "old" {
      let text = "sfctl: cannot run /usr/bin/sf-offload in old: No such file or directory.\n"
      return try await end(127, error: text)
    }
    let words = start.arguments
    let separator = words.firstIndex(of: "--")!
    let mark = words[separator - 1], program = Array(words[(separator + 1)...])
    var report = Data(Self.report.utf8)
    var status: Int32 = 7
    switch program[0] {
    case "arguments":
      let shown = words.map { $0 == mark ? "MARK" : $0 } + start.environment
      try await say(Data((shown.joined(separator: " ") + "\n").utf8))
    case "cat":
      while let message = try await messages.next(), message.kind != .stdinClosed(true) {
        if case .stdin(let bytes) = message.kind { try await say(bytes) }
      }
    case "no-symbol":
      return try await end(2, error: "sf-offload: no-symbol has no function nobody. See nm -D.\n")
    case "no-report":
      return try await end(137)
    case "bad-report":
      report = Data(#"{"calls":1}"#.utf8)
    case "words":
      // What the daemon would say, but said by a program.
      try await response.write(
        .with { $0.stderr = Data("sfctl: cannot run /usr/bin/sf-offload in a joke\n".utf8) })
      try await say(Data("more\n".utf8))
    case "await-signal":
      try await say(Data("ready\n".utf8))
      while let message = try await messages.next() {
        guard case .signal(let number) = message.kind else { continue }
        status = 128 + number
        break
      }
    default: break
    }
    // In pieces, as a pipe may give it; once behind the beginning of a mark and before what a child of the program says.
    let speaks = program[0] == "words"
    let line =
      Data(((speaks ? mark.prefix(10) : "") + mark).utf8) + report
      + Data((speaks ? "\nlast words\n" : "\n").utf8)
    for piece in stride(from: 0, to: line.count, by: 7) {
      try await response.write(.with { $0.stderr = line[piece..<min(piece + 7, line.count)] })
    }
    try await end(status)
  }

  private func say(_ bytes: Data) async throws { try await response.write(.with { $0.stdout = bytes }) }

  private func end(_ status: Int32, error: String = "") async throws {
    if !error.isEmpty { try await response.write(.with { $0.stderr = Data(error.utf8) }) }
    try await response.write(.with { $0.exitStatus = status })
  }
}
