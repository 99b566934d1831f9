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
  private func answers() throws -> Bool {
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
    let log = try openLog()
    let logBegin = (try? log.size()) ?? 0
    let pid = try spawn(program, log: log)
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

  private func openLog() throws -> OwnedDescriptor {
    do {
      return try OwnedDescriptor.open(paths.daemonLog, O_WRONLY | O_CREAT | O_APPEND, mode: 0o640)
    } catch {
      throw Failure("cannot start the daemon: \(error). Run sfctl as root.", .refused)
    }
  }

  /// In a session of its own: it outlives sfctl and its terminal.
  private func spawn(_ program: String, log: OwnedDescriptor) throws -> pid_t {
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
    posix_spawn_file_actions_adddup2(&actions, log.raw, STDOUT_FILENO)
    posix_spawn_file_actions_adddup2(&actions, log.raw, STDERR_FILENO)
    closeInheritedDescriptorsOnExec()

    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    // sfctl ignores SIGPIPE, and may have been started with signals blocked; the daemon begins with none of that.
    var defaults = sigset_t()
    sigfillset(&defaults)
    posix_spawnattr_setsigdefault(&attributes, &defaults)
    var mask = sigset_t()
    sigemptyset(&mask)
    posix_spawnattr_setsigmask(&attributes, &mask)
    posix_spawnattr_setflags(
      &attributes, Int16(POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK | Self.spawnSetSession))

    var pid: pid_t = 0
    var arguments: [UnsafeMutablePointer<CChar>?] = [strdup(program), nil]
    defer { free(arguments[0]) }
    let code = posix_spawn(&pid, program, &actions, &attributes, &arguments, environ)
    guard code == 0 else {
      throw Failure("cannot start the daemon: \(SystemError("spawn", subject: program, errno: code)).")
    }
    return pid
  }

  /// What sfctl's caller left open (a pipe, a lock) must not stay open for the daemon's life.
  private func closeInheritedDescriptorsOnExec() {
    let open = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")) ?? []
    for descriptor in open.compactMap({ CInt($0) }) where descriptor > STDERR_FILENO {
      _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
    }
  }

  /// `POSIX_SPAWN_SETSID`, glibc 2.26.
  private static let spawnSetSession: CInt = 0x80

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
