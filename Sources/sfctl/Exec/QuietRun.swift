import Foundation
import Wire

/// A command in a guest whose output is for us; it has no input, and what it complains of is not shown.
enum QuietRun {
  /// More than that is no answer of a program of ours.
  private static let limit = 1 << 20

  /// Its exit status and standard output.
  static func run(
    _ command: [String], in vm: String, _ client: Daemon.Client
  ) async throws -> (status: Int32, output: Data) {
    try await client.exec(
      options: Daemon.options,
      requestProducer: { writer in
        try await writer.write(
          .with {
            $0.start = .with {
              $0.name = vm
              $0.arguments = command
            }
          })
        try await writer.write(.with { $0.stdinClosed = true })
        // The stream's end would be the operator's going away.
        for await _ in AsyncStream(Never.self, { _ in }) {}
      },
      onResponse: { response in
        var output = Data()
        for try await message in response.messages {
          switch message.kind {
          case .stdout(let bytes):
            output += bytes
            guard output.count <= limit else {
              throw Failure("\(command[0]) in \(vm) does not stop talking. Look for what it is.")
            }
          case .exitStatus(let status): return (status, output)
          case .stderr, nil: break
          }
        }
        throw Failure(
          "\(command[0]) in \(vm) was cut short: the VM has ended meanwhile. Try “sfctl ps --all”.")
      })
  }
}
