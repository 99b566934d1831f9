import Foundation

/// A program of the host that runs, its output going to files so that it never waits for a reader.
public final class Command: @unchecked Sendable {
  public struct Outcome: Sendable {
    public var status: Int32
    public var output: Data
    public var error: String
    public var text: String { String(decoding: output, as: UTF8.self) }
    public var lines: [String] { text.split(separator: "\n").map(String.init) }
  }

  public struct TookTooLong: Error, CustomStringConvertible {
    public var description: String
  }

  private let process = Process()
  private let ended = DispatchSemaphore(value: 0)
  private let files: String
  public let description: String
  public var pid: Int32 { process.processIdentifier }

  /// Starts it. `scratch` is a directory for its input and output.
  public init(
    _ program: String, _ arguments: [String], environment: [String: String] = [:], input: Data? = nil,
    scratch: String
  ) throws {
    description = ([(program as NSString).lastPathComponent] + arguments).joined(separator: " ")
    files = scratch + "/" + UUID().uuidString
    for suffix in [".out", ".err"] { try Data().write(to: URL(fileURLWithPath: files + suffix)) }
    if let input {
      try input.write(to: URL(fileURLWithPath: files + ".in"))
      process.standardInput = FileHandle(forReadingAtPath: files + ".in")
    } else {
      process.standardInput = FileHandle.nullDevice
    }
    process.executableURL = URL(fileURLWithPath: program)
    process.arguments = arguments
    process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
    process.standardOutput = FileHandle(forWritingAtPath: files + ".out")
    process.standardError = FileHandle(forWritingAtPath: files + ".err")
    process.terminationHandler = { [ended] _ in ended.signal() }
    try process.run()
  }

  deinit {
    for suffix in [".in", ".out", ".err"] { try? FileManager.default.removeItem(atPath: files + suffix) }
  }

  public var isRunning: Bool { process.isRunning }

  /// What it has written to its standard output so far.
  public var outputSoFar: String {
    String(decoding: FileManager.default.contents(atPath: files + ".out") ?? Data(), as: UTF8.self)
  }

  public func signal(_ number: Int32) { kill(pid, number) }

  /// Waits for its end. The deadline is generous, only so that nothing hangs for ever: past it the program is ended.
  public func wait(seconds: Int = 90) throws -> Outcome {
    if ended.wait(timeout: .now() + .seconds(seconds)) == .timedOut {
      signal(SIGKILL)
      throw TookTooLong(description: "\(description): no end after \(seconds) s; so far: \(outputSoFar)")
    }
    ended.signal()  // for one who asks again
    return Outcome(
      status: process.terminationReason == .exit
        ? process.terminationStatus : 128 + process.terminationStatus,
      output: FileManager.default.contents(atPath: files + ".out") ?? Data(),
      error: String(decoding: FileManager.default.contents(atPath: files + ".err") ?? Data(), as: UTF8.self))
  }
}

/// Asks again and again until the answer is yes; false after the deadline, which is there so that nothing hangs.
public func eventually(seconds: Int = 30, _ condition: () throws -> Bool) rethrows -> Bool {
  let deadline = ContinuousClock.now + .seconds(seconds)
  while ContinuousClock.now < deadline {
    if try condition() { return true }
    usleep(50_000)
  }
  return try condition()
}
