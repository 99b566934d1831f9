import Foundation
import Glibc
import LinuxSystem
import Memtap

/// A pager on a tmpfs of its own and the guests of one measurement. `close` ends and removes all of it.
final class Bench {
  let client: MemtapClient
  private let paths: MemtapPaths
  private let pager = Process()
  private var guests: [BenchGuest] = []
  private let programs = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
    .deletingLastPathComponent()

  init(tuning: String = "") throws {
    paths = MemtapPaths(run: "/tmp/sfb-\(getpid())-\(UInt32.random(in: 0 ..< .max))")
    client = MemtapClient(socketPath: paths.controlSocket)
    for directory in [paths.run, paths.memory] { mkdir(directory, 0o711) }
    try Tmpfs.mount(at: paths.memory, bytesMax: 12 << 30)
    mkdir(paths.ram, 0o711)
    pager.executableURL = programs.appendingPathComponent("sf-memtap")
    pager.environment = ["SNOWFORK_RUN": paths.run, "SNOWFORK_PAGER_TUNING": tuning]
    try pager.run()
    for _ in 0..<500 where (try? client.status()) == nil { usleep(10_000) }
  }

  func guest(_ name: String, pages: Int) throws -> BenchGuest {
    let token = (0..<64).map { _ in String(UInt8.random(in: 0..<16), radix: 16) }.joined()
    try client.expect(vm: name, token: token, ramBytes: UInt64(pages) * 4096)
    let library = ProcessInfo.processInfo.environment["SNOWFORK_SHIM"] ?? "build/lib/libsnowfork-ramshim.so"
    let absolute = URL(fileURLWithPath: library).path
    let guest = try BenchGuest(
      program: programs.appendingPathComponent("memtap-test-guest"),
      arguments: ["\(paths.ram)/\(name)", String(pages * 4096)],
      environment: paths.shimEnvironment(library: absolute, token: token))
    guests.append(guest)
    try client.waitForShim(vm: name, timeoutMilliseconds: 5000)
    return guest
  }

  func freeze(_ name: String, as snapshot: String) throws {
    try client.arm(vm: name)
    _ = try client.commit(vm: name, snapshot: snapshot)
  }

  func clone(_ name: String, of snapshot: String, pages: Int) throws -> BenchGuest {
    let guest = try guest(name, pages: pages)
    try client.activate(vm: name, snapshot: snapshot)
    return guest
  }

  func close() {
    for guest in guests { guest.end() }
    kill(pager.processIdentifier, SIGKILL)
    pager.waitUntilExit()
    try? Tmpfs.unmount(paths.memory)
    try? FileManager.default.removeItem(atPath: paths.run)
  }
}

/// One memtap-test-guest.
final class BenchGuest {
  enum Access: String { case read, write }
  private let process = Process()
  private let input = Pipe()
  private let output = Pipe()

  init(program: URL, arguments: [String], environment: [String: String]) throws {
    process.executableURL = program
    process.arguments = arguments
    process.environment = environment
    process.standardInput = input
    process.standardOutput = output
    try process.run()
  }

  func write(_ range: Range<Int>, tag: Int) throws {
    try send("write \(range.lowerBound) \(range.count) \(tag)")
    _ = try read(3)
  }

  func time(_ access: Access, from first: Int, count: Int, stride: Int = 1) throws -> [UInt32] {
    try send("time \(access) \(first) \(count) \(stride)")
    return try read(count * 4).withUnsafeBytes { Array($0.bindMemory(to: UInt32.self)) }
  }

  func end() {
    kill(process.processIdentifier, SIGKILL)
    process.waitUntilExit()
  }

  private func send(_ line: String) throws {
    try input.fileHandleForWriting.write(contentsOf: Data("\(line)\n".utf8))
  }

  private func read(_ count: Int) throws -> [UInt8] {
    var bytes: [UInt8] = []
    while bytes.count < count {
      guard let part = try output.fileHandleForReading.read(upToCount: count - bytes.count), !part.isEmpty
      else {
        throw SystemError("read", subject: "the guest's answer", errno: EPIPE)
      }
      bytes += part
    }
    return bytes
  }
}
