import BenchSupport
import Foundation
import Glibc

/// A program in one host's namespace: this one in one of its roles, or a peer's.
final class Host {
  private let process = Process()
  private let input = Pipe()
  private let output = Pipe()
  private var unread: [UInt8] = []

  /// One of this program's roles (Roles.swift).
  convenience init(_ network: Network, _ host: Int, role: [String]) throws {
    let own = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().path
    try self.init(network, host, [own, "--role"] + role)
  }

  init(_ network: Network, _ host: Int, _ command: [String]) throws {
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = ["ip", "netns", "exec", network.namespace(host)] + command
    process.environment = ["PATH": "/usr/sbin:/usr/bin:/sbin:/bin"]
    process.standardInput = input
    process.standardOutput = output
    process.standardError = output
    try process.run()
    try output.fileHandleForWriting.close()
  }

  func say(_ line: String) throws { try input.fileHandleForWriting.write(contentsOf: Data("\(line)\n".utf8)) }

  /// What follows `word` in the next line that begins with it; other lines are passed over.
  @discardableResult
  func wait(for word: String) throws -> [String] {
    var passed: [String] = []
    while let line = nextLine() {
      if line.hasPrefix(word) { return line.dropFirst(word.count).split(separator: " ").map(String.init) }
      passed.append(line)
    }
    throw BenchError("\(command) ended without \"\(word)\": \(passed.suffix(3).joined(separator: "; "))")
  }

  /// No more will be said to it.
  func finish() throws { try input.fileHandleForWriting.close() }

  func waitUntilExit() throws {
    var last = ""
    while let line = nextLine() { last = line.isEmpty ? last : line }
    process.waitUntilExit()
    guard process.terminationStatus == 0 else {
      throw BenchError("\(command) ended with status \(process.terminationStatus): \(last)")
    }
  }

  private var command: String { process.arguments?.dropFirst(4).joined(separator: " ") ?? "" }

  func end() {
    try? input.fileHandleForWriting.close()
    // `timeout` hands it on to what it runs.
    if process.isRunning { kill(process.processIdentifier, SIGTERM) }
    process.waitUntilExit()
  }

  private func nextLine() -> String? {
    while true {
      if let end = unread.firstIndex(where: { $0 == 10 || $0 == 13 }) {
        defer { unread.removeSubrange(...end) }
        return String(decoding: unread[..<end], as: UTF8.self)
      }
      let more = output.fileHandleForReading.availableData
      if more.isEmpty { return nil }
      unread += more
    }
  }
}
