import BenchSupport
import Foundation
import Glibc
import LinuxSystem

/// QEMU's live migration of a running guest, round after round and without end: each sends what was written since the
/// one before began.
///
/// QEMU begins a round when the last one has been sent, and ends the migration when little is left. So that rounds come
/// at given times, nobody reads the stream from the begin of one until the next is due; then it is read in so small
/// pieces that the guest goes on writing meanwhile, until QEMU counts the next round.
final class MigrationRounds {
  private let machine: PeerMachine
  private let monitor: MonitorClient
  private let stream: OwnedDescriptor
  private var buffer = [UInt8](repeating: 0, count: 1 << 20)
  private var lastBytes = 32 << 20
  private static let piecesOfRound = 32
  /// What QEMU can be ahead of the reader: less than the smallest round.
  private static let streamBytes: CInt = 8192

  /// Boots a guest with `load` running in it and sends it a first time.
  init(_ image: GuestImage, _ size: GuestSize, load: [String], in workspace: Workspace) throws {
    var ends: [CInt] = [-1, -1]
    guard socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0, &ends) == 0 else {
      throw BenchError("no socket for QEMU's migration: errno \(errno)")
    }
    stream = OwnedDescriptor(taking: ends[0])
    let far = OwnedDescriptor(taking: ends[1])
    var bytes = Self.streamBytes
    setsockopt(far.raw, SOL_SOCKET, SO_SNDBUF, &bytes, socklen_t(MemoryLayout<CInt>.size))
    machine = try PeerMachine(.boot(image), size, in: workspace)
    try AgentLink(path: machine.agentPath).execute(load)
    monitor = try machine.monitor()
    try monitor.prepareMigration()
    try monitor.execute("migrate-set-parameters", ["downtime-limit": 1])
    try monitor.execute("getfd", ["fdname": "stream"], passing: far)
    try monitor.execute("migrate", ["uri": "fd:stream"])
    while try rounds() < 2 { _ = try take(buffer.count) }
  }

  func end() { machine.end() }

  /// One round, and what is left of `seconds`. Answers the bytes that it sent.
  func round(seconds: Double) throws -> Int {
    let watch = Stopwatch()
    let before = try rounds()
    let piece = max(4096, lastBytes / Self.piecesOfRound)
    var bytes = 0
    while try rounds() == before {
      bytes += try take(piece)
      usleep(UInt32(seconds * 1e6 / Double(2 * Self.piecesOfRound)))
    }
    lastBytes = bytes
    let left = seconds * 1e6 - watch.microseconds
    if left > 0 { usleep(UInt32(left)) }
    return bytes
  }

  /// How often QEMU has looked which pages were written. Throws if the migration is not under way.
  private func rounds() throws -> Int {
    while true {
      let answer = try monitor.execute("query-migrate") as? [String: Any]
      let status = answer?["status"] as? String ?? "none"
      if status == "active", let ram = answer?["ram"] as? [String: Any],
        let count = ram["dirty-sync-count"] as? NSNumber
      {
        return count.intValue
      }
      guard status == "setup" else { throw BenchError("QEMU's migration is \(status), not under way") }
    }
  }

  /// Reads what is there, `most` bytes at most.
  private func take(_ most: Int) throws -> Int {
    var bytes = 0
    while bytes < most {
      var entry = pollfd(fd: stream.raw, events: Int16(POLLIN), revents: 0)
      guard poll(&entry, 1, 5) > 0 else { break }
      let count = try buffer.withUnsafeMutableBytes {
        try stream.read(into: UnsafeMutableRawBufferPointer(rebasing: $0[..<min($0.count, most - bytes)]))
      }
      guard count > 0 else { throw BenchError("QEMU closed the stream of its migration") }
      bytes += count
    }
    return bytes
  }
}
