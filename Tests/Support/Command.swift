import Foundation

/// A program of the host that runs, its output going to files so that it never waits for a reader.
/// By posix_spawn: Foundation's Process keeps descriptors of every program it ever ran.
public final class Command {
  public struct Outcome: Sendable {
    /// 128 + signal for a program that a signal ended.
    public var status: Int32
    public var output: Data
    public var error: String
    public var text: String { String(decoding: output, as: UTF8.self) }
    public var lines: [String] { text.split(separator: "\n").map(String.init) }
  }

  public struct Failed: Error, CustomStringConvertible {
    public var description: String
  }

  public let pid: Int32
  public let description: String
  private let files: String
  private var endStatus: Int32?

  /// Starts it. `scratch` is a directory for its input and output.
  public init(
    _ program: String, _ arguments: [String], environment: [String: String] = [:], input: Data? = nil,
    scratch: String
  ) throws {
    description = ([(program as NSString).lastPathComponent] + arguments).joined(separator: " ")
    files = scratch + "/" + UUID().uuidString
    if let input { try input.write(to: URL(fileURLWithPath: files + ".in")) }
    let all = ProcessInfo.processInfo.environment.merging(environment) { $1 }
    pid = try Self.spawn(
      [program] + arguments, all.map { "\($0)=\($1)" }, input: input == nil ? "/dev/null" : files + ".in",
      output: files + ".out", error: files + ".err")
  }

  private static func spawn(
    _ arguments: [String], _ environment: [String], input: String, output: String, error: String
  ) throws -> Int32 {
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, 0, input, O_RDONLY, 0)
    posix_spawn_file_actions_addopen(&actions, 1, output, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
    posix_spawn_file_actions_addopen(&actions, 2, error, O_WRONLY | O_CREAT | O_TRUNC, 0o600)

    // Signals as a shell gives them, whatever the test runner does with its own.
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    var signals = sigset_t()
    sigemptyset(&signals)
    posix_spawnattr_setsigmask(&attributes, &signals)
    sigfillset(&signals)
    posix_spawnattr_setsigdefault(&attributes, &signals)
    posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))

    let argv = arguments.map { strdup($0) } + [nil]
    let envp = environment.map { strdup($0) } + [nil]
    defer { for text in argv + envp { free(text) } }
    var pid: pid_t = 0
    let result = posix_spawn(&pid, arguments[0], &actions, &attributes, argv, envp)
    guard result == 0 else {
      throw Failed(description: "\(arguments[0]): \(String(cString: strerror(result)))")
    }
    return pid
  }

  deinit {
    if !hasEnded {
      kill(pid, SIGKILL)
      waitpid(pid, nil, 0)
    }
    for suffix in [".in", ".out", ".err"] { unlink(files + suffix) }
  }

  /// What it has written to its standard output so far.
  public var outputSoFar: String { String(decoding: written(".out"), as: UTF8.self) }

  private func written(_ suffix: String) -> Data {
    FileManager.default.contents(atPath: files + suffix) ?? Data()
  }

  public func signal(_ number: Int32) { kill(pid, number) }

  /// Waits for its end. The deadline is generous, only so that nothing hangs for ever: past it the program is ended.
  public func wait(seconds: Int = 90) throws -> Outcome {
    guard eventually(seconds: seconds, every: 3_000, { hasEnded }), let endStatus else {
      throw Failed(description: "\(description): no end after \(seconds) s; so far: \(outputSoFar)")
    }
    let signal = endStatus & 0x7F
    return Outcome(
      status: signal == 0 ? endStatus >> 8 & 0xFF : 128 + signal, output: written(".out"),
      error: String(decoding: written(".err"), as: UTF8.self))
  }

  private var hasEnded: Bool {
    if endStatus == nil {
      var status: Int32 = 0
      if waitpid(pid, &status, WNOHANG) == pid { endStatus = status }
    }
    return endStatus != nil
  }
}

/// Asks again and again until the answer is yes; false after the deadline, which is there so that nothing hangs.
public func eventually(seconds: Int = 30, every microseconds: UInt32 = 50_000, _ condition: () throws -> Bool)
  rethrows -> Bool
{
  let deadline = ContinuousClock.now + .seconds(seconds)
  while ContinuousClock.now < deadline {
    if try condition() { return true }
    usleep(microseconds)
  }
  return try condition()
}
