import Foundation
import Glibc
import LinuxSystem
import Synchronization

/// The benchmark's own directories. Whatever runs or is mounted in their name ends with them.
public final class Workspace: Sendable {
  public let root: String
  /// What else is to be done at the end, before processes are ended.
  private let closing = Mutex<[@Sendable () -> Void]>([])

  /// Creates `/tmp/sfbench-PID` with a tmpfs `files` of at most 8 GiB: the states that peers save cost no disk.
  public init() throws {
    root = "/tmp/sfbench-\(getpid())"
    let files = "\(root)/files"
    // QEMU under libvirt is an unprivileged user, and has to get through here.
    try FileManager.default.createDirectory(
      atPath: files, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o755])
    chmod(root, 0o777)
    try Tmpfs.mount(at: files, bytesMax: 8 << 30)
  }

  public func file(_ name: String) -> String { "\(root)/files/\(name)" }

  /// Ends every process that has a path of ours among its arguments or in its environment, and removes mounts and
  /// files. May be called by two threads: both return when it is done.
  public func close() {
    closing.withLock { first in
      for step in first { step() }
      first = []
      // A process may have started another while we looked: only a second look that finds nothing is believed.
      var quietLooks = 0
      for _ in 0..<50 where quietLooks < 2 {
        let found = processes()
        for pid in found { kill(pid, SIGKILL) }
        quietLooks = found.isEmpty ? quietLooks + 1 : 0
        usleep(100_000)
      }
      for path in mounts().reversed() { umount2(path, CInt(MNT_DETACH)) }
      try? FileManager.default.removeItem(atPath: root)
    }
  }

  public func beforeEnd(_ step: @escaping @Sendable () -> Void) { closing.withLock { $0.append(step) } }

  /// On an interrupt or a request to end, closes and exits.
  public func closeOnSignals() -> [any DispatchSourceSignal] {
    [SIGINT, SIGTERM, SIGHUP].map { number in
      signal(number, SIG_IGN)
      let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
      source.setEventHandler { [self] in
        close()
        exit(128 + number)
      }
      source.resume()
      return source
    }
  }

  private func processes() -> [pid_t] {
    let mark = Data("\(root)/".utf8)
    let entries = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
    return entries.compactMap { pid_t($0) }.filter { pid in
      ["cmdline", "environ"].contains {
        FileManager.default.contents(atPath: "/proc/\(pid)/\($0)")?.firstRange(of: mark) != nil
      }
    }
  }

  private func mounts() -> [String] {
    let table = FileManager.default.contents(atPath: "/proc/self/mounts") ?? Data()
    let paths = String(decoding: table, as: UTF8.self).split(separator: "\n").compactMap { line in
      line.split(separator: " ").dropFirst().first.map(String.init)
    }
    return paths.filter { $0.hasPrefix("\(root)/") }
  }
}

/// Runs a program to its end and gives what it printed. Throws with its messages if its status is not 0.
@discardableResult
public func output(of program: String, _ arguments: [String], environment: [String: String] = [:]) throws
  -> Data
{
  let process = Process()
  let output = Pipe()
  let messages = FileManager.default.temporaryDirectory.appendingPathComponent("sfbench-\(UUID()).err")
  _ = FileManager.default.createFile(atPath: messages.path, contents: nil)
  defer { try? FileManager.default.removeItem(at: messages) }
  process.executableURL = URL(fileURLWithPath: program)
  process.arguments = arguments
  process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
  process.standardInput = FileHandle.nullDevice
  process.standardOutput = output
  process.standardError = try FileHandle(forWritingTo: messages)
  try process.run()
  let data = output.fileHandleForReading.readDataToEndOfFile()
  process.waitUntilExit()
  guard process.terminationStatus == 0 else {
    let text = (try? String(contentsOf: messages, encoding: .utf8)) ?? ""
    throw BenchError(
      "\(program) \(arguments.joined(separator: " ")): status \(process.terminationStatus). \(text)")
  }
  return data
}
