import Foundation
import Glibc

/// One memtap-test-guest; its commands are described in Tests/Support/memtap-test-guest/main.c.
final class TestGuest {
  let name: String
  let pages: Int
  private let process = Process()
  private let input = Pipe()
  private let output = Pipe()
  private var hasStorm = false

  init(name: String, pages: Int, ramFile: String, environment: [String: String]) throws {
    self.name = name
    self.pages = pages
    process.executableURL = URL(fileURLWithPath: try TestBinaries.path("memtap-test-guest"))
    process.arguments = [ramFile, String(pages * 4096)]
    process.environment = environment
    process.standardInput = input
    process.standardOutput = output
    try process.run()
  }

  var pid: Int32 { process.processIdentifier }

  /// Gives page p of the range the tag `tag` + p.
  func write(_ range: Range<Int>, tag: UInt64) throws {
    try command("write \(range.lowerBound) \(range.count) \(tag)")
  }

  /// The same, but as a device fills its buffers.
  func fill(_ range: Range<Int>, tag: UInt64) throws {
    try command("fill \(range.lowerBound) \(range.count) \(tag)")
  }

  func zero(_ range: Range<Int>) throws { try command("zero \(range.lowerBound) \(range.count)") }

  /// The tags of all pages: 0 for zeros, `torn` for a page that was never written like that.
  func tags() throws -> [UInt64] { try tags(0..<pages) }

  func tags(_ range: Range<Int>) throws -> [UInt64] {
    try send("tags \(range.lowerBound) \(range.count)")
    return try read(UInt64.self, count: range.count)
  }

  static let torn = UInt64.max

  /// Random writes on a second thread, until the process ends.
  func storm(seed: UInt64) throws {
    try command("storm \(seed)")
    hasStorm = true
  }

  /// The virtual CPUs stand still on return.
  func pause() throws { if hasStorm { try command("pause") } }
  func resume() throws { if hasStorm { try command("resume") } }

  enum Access: String { case read, write }

  /// Touches pages one by one: the nanoseconds that each took.
  func time(_ access: Access, from first: Int, count: Int, stride: Int = 1) throws -> [UInt32] {
    try send("time \(access) \(first) \(count) \(stride)")
    return try read(UInt32.self, count: count)
  }

  /// Sends a command whose answer is read later with `finishTags`: the guest may wait in a fault meanwhile.
  func startTags(_ range: Range<Int>) throws { try send("tags \(range.lowerBound) \(range.count)") }
  /// `within`: milliseconds without an answer, a failure then.
  func finishTags(_ range: Range<Int>, within milliseconds: Int32 = 20_000) throws -> [UInt64] {
    try read(UInt64.self, count: range.count, within: milliseconds)
  }

  /// The next faults reach no pager: as if one had read them and died.
  func swallowFaults() throws { try command("swallow") }

  func end() {
    guard process.isRunning else { return }
    kill(process.processIdentifier, SIGKILL)
    process.waitUntilExit()
  }

  func startWrite(_ range: Range<Int>, tag: UInt64) throws {
    try send("write \(range.lowerBound) \(range.count) \(tag)")
  }
  func startFill(_ range: Range<Int>, tag: UInt64) throws {
    try send("fill \(range.lowerBound) \(range.count) \(tag)")
  }
  func finishWrite() throws { try expectOK("write") }

  private func command(_ line: String) throws {
    try send(line)
    try expectOK(line)
  }

  private func expectOK(_ line: String) throws {
    var answer: [UInt8] = []
    while answer.last != UInt8(ascii: "\n") { answer += try read(UInt8.self, count: 1) }
    let text = String(decoding: answer, as: UTF8.self)
    guard text.hasPrefix("ok") else { throw HarnessError("\(name) answers \(text) to \(line)") }
  }

  private func send(_ line: String) throws {
    try input.fileHandleForWriting.write(contentsOf: Data("\(line)\n".utf8))
  }

  private func read<T: FixedWidthInteger>(
    _ type: T.Type, count: Int, within milliseconds: Int32 = 20_000
  ) throws -> [T] {
    var values = [T](repeating: 0, count: count)
    let descriptor = output.fileHandleForReading.fileDescriptor
    try values.withUnsafeMutableBytes { bytes in
      var done = 0
      while done < bytes.count {
        // A guest that waits for a page for ever is a failure, not a test that hangs.
        var wait = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        guard poll(&wait, 1, milliseconds) == 1 else {
          throw HarnessError("\(name) has not answered in \(milliseconds) ms")
        }
        let got = Glibc.read(descriptor, bytes.baseAddress! + done, bytes.count - done)
        guard got > 0 else { throw HarnessError("\(name) has ended") }
        done += got
      }
    }
    return values
  }
}
