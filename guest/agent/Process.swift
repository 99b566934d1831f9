import CGuest
import Glibc

/// Child processes: starting them, and learning how they ended.
enum Process {
  /// Starts a program as the leader of a new session, found along PATH, with default signals.
  ///
  /// `standard`: descriptors for its input, output and error; -1 for /dev/null. `environment` nil: the agent's own.
  static func spawn(
    _ arguments: [String], environment: [String]? = nil, standard: (Int32, Int32, Int32)
  ) throws(SystemError) -> Int32 {
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    for (target, source) in [(0, standard.0), (1, standard.1), (2, standard.2)] as [(Int32, Int32)] {
      if source < 0 {
        posix_spawn_file_actions_addopen(&actions, target, "/dev/null", O_RDWR, 0)
      } else {
        posix_spawn_file_actions_adddup2(&actions, source, target)
      }
    }
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    var signals = sigset_t()
    sigemptyset(&signals)
    posix_spawnattr_setsigmask(&attributes, &signals)
    sigfillset(&signals)
    posix_spawnattr_setsigdefault(&attributes, &signals)
    let flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | 0x80  // POSIX_SPAWN_SETSID
    posix_spawnattr_setflags(&attributes, Int16(flags))

    var argv: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
    var envp: [UnsafeMutablePointer<CChar>?] = (environment ?? []).map { strdup($0) } + [nil]
    defer { (argv + envp).forEach { free($0) } }
    var pid: pid_t = 0
    let result =
      environment == nil
      ? posix_spawnp(&pid, argv[0]!, &actions, &attributes, &argv, environ)
      : posix_spawnp(&pid, argv[0]!, &actions, &attributes, &argv, &envp)
    guard result == 0 else { throw SystemError(arguments[0], result) }
    return pid
  }

  /// The exit status of a child, or nil if it still runs after the time.
  static func wait(for pid: Int32, milliseconds: Int32) -> Int32? {
    let pidfd = cguest_pidfd_open(pid)
    guard pidfd >= 0 else { return nil }
    defer { close(pidfd) }
    var waiting = pollfd(fd: pidfd, events: Int16(POLLIN), revents: 0)
    guard poll(&waiting, 1, milliseconds) == 1 else { return nil }
    var status: Int32 = 0
    guard waitpid(pid, &status, 0) == pid else { return nil }
    return cguest_exit_status(status)
  }

  /// The exit status of a process that has ended but is not reaped yet, from the last field of /proc/PID/stat.
  static func zombieStatus(_ pid: Int32) -> Int32? {
    guard let stat = readText("/proc/\(pid)/stat"), let end = stat.lastIndex(of: ")") else { return nil }
    let fields = stat[end...].split(separator: " ")
    guard fields.count > 2, fields[1] == "Z", let status = Int32(fields[fields.count - 1]) else { return nil }
    return cguest_exit_status(status)
  }
}

/// Reaps children as they end: the commands of the host and, for an init, every orphan of the guest.
final class Reaper {
  var onExit: (_ pid: Int32, _ status: Int32) -> Void = { _, _ in }

  init(loop: EventLoop) throws(SystemError) {
    var signals = sigset_t()
    sigemptyset(&signals)
    sigaddset(&signals, SIGCHLD)
    sigprocmask(SIG_BLOCK, &signals, nil)
    let fd = signalfd(-1, &signals, Int32(SFD_NONBLOCK | SFD_CLOEXEC))
    guard fd >= 0 else { throw SystemError("signalfd") }
    _ = try loop.add(fd, EventLoop.readable) { [unowned self] _ in
      var information = [UInt8](repeating: 0, count: 128 * 16)
      while case .bytes = information.withUnsafeMutableBytes({ readSome(fd, into: $0) }) {}
      reap()
    }
  }

  private func reap() {
    var status: Int32 = 0
    while true {
      let pid = waitpid(-1, &status, WNOHANG)
      guard pid > 0 else { return }
      onExit(pid, cguest_exit_status(status))
    }
  }
}
