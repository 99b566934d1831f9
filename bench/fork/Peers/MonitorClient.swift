import BenchSupport
import Foundation
import Glibc
import LinuxSystem

/// A client of QEMU's monitor (QMP) that does one thing after the other.
final class MonitorClient {
  private let socket: OwnedDescriptor
  private var pending = Data()

  /// Connects when the socket is there and ends the negotiation of capabilities.
  init(path: String) throws {
    var connection: OwnedDescriptor?
    for _ in 0..<10_000 where connection == nil {
      connection = try? UnixSocket.connect(path: path)
      if connection == nil { usleep(1000) }
    }
    guard let connection else { throw BenchError("QEMU's monitor does not listen at \(path)") }
    socket = connection
    _ = try line()
    try execute("qmp_capabilities")
  }

  /// One command, with a descriptor for `getfd`; events that come before its answer are dropped.
  @discardableResult
  func execute(_ command: String, _ arguments: [String: Any] = [:], passing: OwnedDescriptor? = nil) throws
    -> Any?
  {
    let request: [String: Any] = ["execute": command, "arguments": arguments]
    try JSONSerialization.data(withJSONObject: request).withUnsafeBytes {
      try UnixSocket.send(socket, $0, descriptors: passing.map { [$0.raw] } ?? [])
    }
    while true {
      let answer = try line()
      if let error = answer["error"] as? [String: Any] {
        throw BenchError("QEMU: \(command): \(error["desc"] ?? error)")
      }
      if let result = answer["return"] { return result }
    }
  }

  /// A command of the human monitor; what it prints is an error.
  func human(_ command: String) throws {
    let text = try execute("human-monitor-command", ["command-line": command]) as? String ?? ""
    guard text.isEmpty else { throw BenchError("QEMU: \(command): \(text)") }
  }

  /// Shows migrations by events, and lets nothing throttle them: QEMU's own limit is 128 MiB/s.
  func prepareMigration() throws {
    try execute("migrate-set-capabilities", ["capabilities": [["capability": "events", "state": true]]])
    try execute("migrate-set-parameters", ["max-bandwidth": 1 << 40])
  }

  /// Lets the guest run. For a moment after a migration has completed QEMU refuses that.
  func cont() throws {
    let deadline = ContinuousClock.now + .seconds(5)
    while true {
      do {
        try execute("cont")
        return
      } catch let error as BenchError {
        guard error.description.contains("not finalized"), ContinuousClock.now < deadline else { throw error }
        usleep(500)
      }
    }
  }

  /// Returns when QEMU says that a migration has completed.
  func waitForMigration() throws {
    while true {
      let event = try line()
      guard event["event"] as? String == "MIGRATION", let data = event["data"] as? [String: Any] else {
        continue
      }
      if data["status"] as? String == "completed" { return }
      if data["status"] as? String == "failed" { throw BenchError("QEMU's migration failed") }
    }
  }

  private func line() throws -> [String: Any] {
    var buffer = [UInt8](repeating: 0, count: 65536)
    while true {
      if let end = pending.firstIndex(of: 0x0A) {
        let text = pending[pending.startIndex..<end]
        pending = Data(pending[(end + 1)...])
        return try JSONSerialization.jsonObject(with: text) as? [String: Any] ?? [:]
      }
      let count = try buffer.withUnsafeMutableBytes { try socket.read(into: $0) }
      guard count > 0 else { throw BenchError("QEMU ended") }
      pending.append(contentsOf: buffer[..<count])
    }
  }
}
