import Foundation
import LinuxSystem

/// Programs of the system. By posix_spawn: only their standard descriptors are open in them, and nobody waits for the
/// end of a pipe that a grandchild holds.
enum Tool {
  /// Runs it to its end. Throws what it said last; past `seconds` it is killed.
  static func run(
    _ program: String, _ arguments: [String], environment: [String: String] = [:], seconds: Int = 120
  ) throws(Failure) {
    let words = "\(program) \(arguments.joined(separator: " "))"
    let output: OwnedDescriptor
    do { output = try AnonymousFile.create(name: "tool") } catch {
      throw Failure("cannot run \(words): \(error).")
    }
    let pid = try spawn(program, arguments, environment, output: output.raw)
    guard let status = end(of: pid, seconds: seconds) else {
      kill(pid, SIGKILL)
      waitpid(pid, nil, 0)
      throw Failure("\(words): no end after \(seconds) s; it was killed.")
    }
    guard status != 0 else { return }
    let text = String(decoding: (try? AnonymousFile.contents(output)) ?? [], as: UTF8.self)
    throw Failure("\(words): \(text.split(separator: "\n").last.map(String.init) ?? "status \(status)").")
  }

  /// Nil: it runs on.
  private static func end(of pid: pid_t, seconds: Int) -> CInt? {
    let deadline = ContinuousClock.now + .seconds(seconds)
    var status: CInt = 0
    while waitpid(pid, &status, WNOHANG) == 0 {
      guard ContinuousClock.now < deadline else { return nil }
      usleep(2000)
    }
    return status & 0x7F == 0 ? status >> 8 & 0xFF : 128 + status & 0x7F
  }

  private static func spawn(
    _ program: String, _ arguments: [String], _ environment: [String: String], output: CInt
  ) throws(Failure) -> pid_t {
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    posix_spawn_file_actions_adddup2(&actions, output, 1)
    posix_spawn_file_actions_adddup2(&actions, output, 2)
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    var signals = sigset_t()
    sigfillset(&signals)
    posix_spawnattr_setsigdefault(&attributes, &signals)
    sigemptyset(&signals)
    posix_spawnattr_setsigmask(&attributes, &signals)
    posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK))

    let all = ProcessInfo.processInfo.environment
      .merging(["PATH": "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin"]) { own, add in "\(own):\(add)" }
      .merging(environment) { $1 }
    let argv = (["/usr/bin/env", program] + arguments).map { strdup($0) } + [nil]
    let envp = all.map { strdup("\($0)=\($1)") } + [nil]
    defer { for text in argv + envp { free(text) } }
    var pid: pid_t = 0
    let code = posix_spawn(&pid, "/usr/bin/env", &actions, &attributes, argv, envp)
    guard code == 0 else {
      throw Failure("cannot run \(program): \(String(cString: strerror(code))). Run tools/setup.")
    }
    return pid
  }
}
