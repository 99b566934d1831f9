import Foundation
import Glibc
import LinuxSystem
import Wire

/// Starts sfd on this machine when nobody listens on its socket.
///
/// Two sfctl at once start one daemon: the second waits for the lock, and then finds the first one's daemon.
struct DaemonStarter {
  private let paths: RuntimePaths
  private static let startLimit: Duration = .seconds(60)

  init(_ paths: RuntimePaths) { self.paths = paths }

  /// On return the socket has accepted a connection.
  func ensureRunning() async throws {
    if try answers() { return }
    try await ProgressLine.during("starting the daemon") { _ in try await start() }
  }

  /// False: nobody listens. Throws where somebody does and refuses us.
  func answers() throws -> Bool {
    do {
      _ = try UnixSocket.connect(path: paths.socket)
      return true
    } catch {
      switch error.errno {
      case ENOENT, ECONNREFUSED: return false
      case EACCES:
        throw Failure(
          "cannot reach the daemon: \(paths.socket) is not open to this user. Run sfctl as root.", .refused)
      default: throw Failure("cannot reach the daemon: \(error). Set SNOWFORK_RUN to the daemon's directory.")
      }
    }
  }

  private func start() async throws {
    try makeDirectories()
    let lock = try await takeLock()
    defer { withExtendedLifetime(lock) {} }
    if try answers() { return }

    let program = try ProgramFiles.daemon()
    let logBegin = logSize()
    let pid: pid_t
    do {
      pid = try DetachedProcess.spawn(program, arguments: [], logPath: paths.daemonLog)
    } catch {
      throw Failure("cannot start the daemon: \(error). Run sfctl as root.", .refused)
    }
    try await waitUntilAnswers(pid: pid, logBegin: logBegin)
  }

  private func makeDirectories() throws {
    for directory in [paths.run, paths.state] {
      do {
        try FileManager.default.createDirectory(
          atPath: directory, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o755])
      } catch {
        guard geteuid() == 0 else {
          throw Failure(
            "cannot start the daemon: it needs root for \(directory). Run sfctl as root.", .refused)
        }
        throw Failure("cannot start the daemon: \(directory) can not be made: \(error.localizedDescription).")
      }
    }
  }

  /// Waits without blocking a thread: whoever holds the lock is done within the start limit.
  private func takeLock() async throws -> OwnedDescriptor {
    do {
      let lock = try OwnedDescriptor.open(paths.startLock, O_RDWR | O_CREAT, mode: 0o600)
      while flock(lock.raw, LOCK_EX | LOCK_NB) != 0 {
        try await Task.sleep(for: .milliseconds(20))
      }
      return lock
    } catch let error as SystemError {
      throw Failure("cannot start the daemon: \(error). Run sfctl as root.", .refused)
    }
  }

  private func logSize() -> UInt64 {
    (try? FileManager.default.attributesOfItem(atPath: paths.daemonLog)[.size] as? UInt64) ?? 0
  }

  private func waitUntilAnswers(pid: pid_t, logBegin: UInt64) async throws {
    let deadline = ContinuousClock.now + Self.startLimit
    while ContinuousClock.now < deadline {
      if try answers() { return }
      var status: CInt = 0
      if waitpid(pid, &status, WNOHANG) == pid {
        // Somebody else's daemon may have been there first.
        if try answers() { return }
        let why = lastLogLine(since: logBegin) ?? "it ended with wait status \(status)"
        throw Failure("cannot start the daemon: \(why) Run “sfctl doctor”; the log is \(paths.daemonLog).")
      }
      try await Task.sleep(for: .milliseconds(10))
    }
    throw Failure(
      "cannot start the daemon: it does not answer after \(Self.startLimit.components.seconds) s. "
        + "Its log is \(paths.daemonLog).")
  }

  private func lastLogLine(since begin: UInt64) -> String? {
    guard let file = FileHandle(forReadingAtPath: paths.daemonLog) else { return nil }
    defer { try? file.close() }
    try? file.seek(toOffset: begin)
    let text = String(decoding: (try? file.readToEnd()) ?? Data(), as: UTF8.self)
    guard var line = text.split(whereSeparator: \.isNewline).last.map(String.init) else { return nil }
    if line.hasPrefix("sfd: ") { line.removeFirst(5) }
    return line.hasSuffix(".") ? line : line + "."
  }
}
