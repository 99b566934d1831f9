import Foundation
import LinuxSystem
import Logging
import Memtap

/// Keeps an `sf-memtap` running, in a process of its own so that neither's end is the other's.
///
/// A pager that an earlier daemon started is taken over. One that dies is replaced at once; its successor gets the
/// userfaultfds back from the shims, and until then the faults of clones wait.
final class MemtapSupervisor: Sendable {
  let client: MemtapClient
  /// What the pager says by itself, across its deaths.
  let events: AsyncStream<MemtapEvent>
  private let configuration: Configuration
  private let workers = WorkerThreads(name: "sfd-memtap", limit: 8)
  private let log: Logger
  private let continuation: AsyncStream<MemtapEvent>.Continuation
  /// Raised by `stop`: no successor is started any more.
  private let stopping = Latch()

  init(configuration: Configuration, log: Logger) {
    self.configuration = configuration
    self.log = log
    client = MemtapClient(socketPath: configuration.memtap.controlSocket)
    (events, continuation) = AsyncStream.makeStream(of: MemtapEvent.self)
  }

  /// On return a pager answers.
  func start() throws {
    try ensureRunning()
    Task { await watch() }
  }

  /// Calls the pager on a worker thread. If it dies in mid-call, the call is made again of its successor: every call
  /// is idempotent.
  func run<T: Sendable>(_ body: @escaping @Sendable (any MemtapControl) throws -> T) async throws -> T {
    let client = client
    return try await workers.run {
      var attempt = 0
      while true {
        do {
          return try body(client)
        } catch let error as MemtapError where error.code == .unavailable && attempt < 100 {
          attempt += 1
          usleep(50_000)
        }
      }
    }
  }

  /// Ends the pager, only when no VM is left, and takes its sockets away.
  func stop() {
    stopping.raise()
    guard let pid = try? client.status().pid else { return }
    kill(pid, SIGTERM)
    for _ in 0..<200 where (try? client.status()) != nil { usleep(10_000) }
    unlink(configuration.memtap.controlSocket)
    unlink(configuration.memtap.shimSocket)
  }

  private func ensureRunning() throws {
    if (try? client.status()) != nil { return }
    let program = configuration.programDirectory + "/sf-memtap"
    let pid = try DetachedProcess.spawn(
      program, arguments: [], logPath: configuration.stateDirectory + "/memtap.log")
    for _ in 0..<400 {
      if (try? client.status()) != nil {
        log.info("the pager runs", metadata: ["pid": "\(pid)"])
        return
      }
      if DetachedProcess.hasExited(pid) { break }
      usleep(10_000)
    }
    let tail = lastLine(ofFile: configuration.stateDirectory + "/memtap.log")
    throw ForkError(
      .failed, "cannot start the pager \(program)\(tail.isEmpty ? "" : ": \(tail)"). Run sfctl doctor.")
  }

  /// Passes the pager's events on until it dies, starts another, and so on.
  private func watch() async {
    var failures = 0
    while !stopping.isRaised {
      for await event in client.events { continuation.yield(event) }
      if stopping.isRaised { return }
      do {
        try await workers.run { try self.ensureRunning() }
        failures = 0
      } catch {
        failures += 1
        log.error("\(error)")
        try? await Task.sleep(for: .milliseconds(200 * min(failures, 10)))
      }
    }
  }
}

/// The last line of a log, for the reason of a failed start.
func lastLine(ofFile path: String) -> String {
  guard let data = FileManager.default.contents(atPath: path) else { return "" }
  return String(decoding: data.suffix(1024), as: UTF8.self).split(whereSeparator: \.isNewline).last.map(
    String.init) ?? ""
}
