import Foundation

/// A run of the real sfctl, with directories of its own that are removed at the end.
final class SfctlProcess: Sendable {
  struct Outcome: Sendable {
    var status: Int32
    var output: String
    var error: String
  }

  /// Short: a socket's path has 108 bytes at most.
  let directory: String
  /// `sfctl` as built, or a copy of it.
  let program: String
  var run: String { directory + "/run" }
  var state: String { directory + "/state" }
  var socket: String { run + "/sfd.sock" }

  /// Where this build's programs lie: beside the running test bundle.
  static let built =
    ((try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? "") + "/../sfctl"

  init(program: String = SfctlProcess.built) throws {
    directory = "/tmp/sfctl-test-" + UUID().uuidString.prefix(8)
    self.program = URL(fileURLWithPath: program).standardizedFileURL.path
    for path in [run, state] {
      try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }
  }

  deinit { try? FileManager.default.removeItem(atPath: directory) }

  /// Runs sfctl with nothing on stdin.
  func callAsFunction(_ arguments: String...) async throws -> Outcome {
    try await launch(program, arguments)
  }

  /// Runs a shell command in which `$SFCTL` is sfctl.
  func shell(_ command: String) async throws -> Outcome {
    try await launch("/bin/bash", ["-o", "pipefail", "-c", command])
  }

  private func launch(_ executable: String, _ arguments: [String]) async throws -> Outcome {
    let name = directory + "/" + UUID().uuidString
    func file(_ suffix: String) throws -> FileHandle {
      _ = FileManager.default.createFile(atPath: name + suffix, contents: nil)
      return try FileHandle(forWritingTo: URL(fileURLWithPath: name + suffix))
    }
    let process = Process()
    process.executableURL = URL(fileURLWithPath: executable)
    process.arguments = arguments
    process.environment = ProcessInfo.processInfo.environment.merging([
      "SNOWFORK_RUN": run, "SNOWFORK_STATE": state, "SFCTL": program,
    ]) { $1 }
    process.standardInput = FileHandle.nullDevice
    process.standardOutput = try file(".out")
    process.standardError = try file(".err")
    try await withCheckedThrowingContinuation { (ended: CheckedContinuation<Void, any Error>) in
      process.terminationHandler = { _ in ended.resume() }
      do { try process.run() } catch { ended.resume(throwing: error) }
    }
    return Outcome(
      status: process.terminationStatus,
      output: try String(contentsOfFile: name + ".out", encoding: .utf8),
      error: try String(contentsOfFile: name + ".err", encoding: .utf8))
  }
}
