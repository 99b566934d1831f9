import Foundation
import Glibc
import LinuxSystem
import Synchronization

/// The benchmark's own directories, and the list of what has to be undone, in the reverse order, however it ends.
final class Workspace: Sendable {
  let root: String
  private let undo = Mutex<[@Sendable () -> Void]>([])

  /// Creates `/tmp/sfbench-PID` with a tmpfs `files` of at most 8 GiB: the states that peers save cost no disk.
  init() throws {
    root = "/tmp/sfbench-\(getpid())"
    let files = "\(root)/files"
    // QEMU under libvirt is an unprivileged user, and has to get through here.
    try FileManager.default.createDirectory(
      atPath: files, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o755])
    atEnd { [root] in try? FileManager.default.removeItem(atPath: root) }
    try Tmpfs.mount(at: files, bytesMax: 8 << 30)
    chmod(files, 0o755)
    atEnd { try? Tmpfs.unmount(files) }
  }

  func file(_ name: String) -> String { "\(root)/files/\(name)" }

  func atEnd(_ step: @escaping @Sendable () -> Void) { undo.withLock { $0.append(step) } }

  /// Undoes everything. May be called twice; the second call finds nothing to do.
  func close() {
    while let step = undo.withLock({ $0.popLast() }) { step() }
  }

  /// On an interrupt or a request to end, undoes everything and exits.
  func closeOnSignals() -> [any DispatchSourceSignal] {
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
}

/// Runs a program to its end and gives what it printed. Throws with its messages if its status is not 0.
@discardableResult
func output(of program: String, _ arguments: [String], environment: [String: String] = [:]) throws -> Data {
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

/// Ends a process if it is the one meant: its command line contains `mark`.
func endProcess(_ pid: pid_t, markedBy mark: String) {
  guard pid > 1, let line = FileManager.default.contents(atPath: "/proc/\(pid)/cmdline"),
    String(decoding: line, as: UTF8.self).contains(mark)
  else { return }
  kill(pid, SIGKILL)
  for _ in 0..<500 where FileManager.default.fileExists(atPath: "/proc/\(pid)") { usleep(10_000) }
}
