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

  /// False: nobody listens, or who does is just dying. Throws where somebody listens and refuses us.
  func answers() throws -> Bool {
    do throws(SystemError) {
      return Self.speaks(try UnixSocket.connect(path: paths.socket))
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

  /// A server of HTTP/2 speaks first; the connections of one that was killed are reset. One that is slow may be alive.
  private static func speaks(_ connection: OwnedDescriptor) -> Bool {
    var poll = pollfd(fd: connection.raw, events: Int16(POLLIN), revents: 0)
    guard Glibc.poll(&poll, 1, 2000) == 1 else { return true }
    var byte: UInt8 = 0
    return recv(connection.raw, &byte, 1, CInt(MSG_DONTWAIT)) == 1
  }

  /// sfd holds its lock until it has cleaned up behind itself.
  func hasEnded() async throws -> Bool {
    guard let lock = try? OwnedDescriptor.open(paths.daemonLock, O_RDWR) else { return true }
    for _ in 0..<3000 {
      if flock(lock.raw, LOCK_EX | LOCK_NB) == 0 { return true }
      try await Task.sleep(for: .milliseconds(10))
    }
    return false
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
        try makeDirectory(directory)
      } catch {
        throw Failure(
          "cannot start the daemon: \(error). Run sfctl as root.", error.errno == EACCES ? .refused : .failed)
      }
    }
  }

  /// With every directory above it. Not an error if it is there.
  private func makeDirectory(_ path: String) throws(SystemError) {
    let parent = (path as NSString).deletingLastPathComponent
    if !parent.isEmpty, access(parent, F_OK) != 0 { try makeDirectory(parent) }
    do {
      try systemCall("mkdir", subject: path) { mkdir(path, 0o755) }
    } catch {
      guard error.errno == EEXIST else { throw error }
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
        throw Failure(
          "cannot start the daemon: \(why) Run “sfctl doctor”; the log is \(paths.daemonLog).",
          exitStatus(status) == ExitStatus.refused.rawValue ? .refused : .failed)
      }
      try await Task.sleep(for: .milliseconds(10))
    }
    throw Failure(
      "cannot start the daemon: it does not answer after \(Self.startLimit.components.seconds) s. "
        + "Its log is \(paths.daemonLog).")
  }

  /// Nil if it was ended by a signal.
  private func exitStatus(_ waitStatus: CInt) -> Int32? {
    waitStatus & 0x7F == 0 ? (waitStatus >> 8) & 0xFF : nil
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
