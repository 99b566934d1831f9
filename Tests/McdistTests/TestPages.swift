import Foundation
import GuestMemory
import LinuxSystem
import Mcdist

/// RAM of all kinds: incompressible, compressible, repeated, zero.
func makePages(_ count: Int, seed: UInt64) -> [UInt8] {
  var random = SplitMix(state: seed)
  var result = [UInt8](repeating: 0, count: count * Page.bytes)
  for page in 0..<count {
    let range = page * Page.bytes..<(page + 1) * Page.bytes
    switch page % 5 {
    case 0, 1: for index in range { result[index] = UInt8(truncatingIfNeeded: random.next()) }
    case 2: for index in range { result[index] = UInt8(truncatingIfNeeded: random.next() & 0x0f0f) & 3 }
    case 3: for index in range { result[index] = UInt8(truncatingIfNeeded: index % 64 + page % 3) }
    default: break
    }
  }
  return result
}

/// Serves an array.
final class ArrayProvider: PageProvider {
  let content: [UInt8]
  /// Asked for so often before it is there.
  var pendings: [PageIndex: Int] = [:]
  var lost: Set<PageIndex> = []
  init(_ content: [UInt8]) { self.content = content }

  func read(_ page: PageIndex, into buffer: UnsafeMutableRawPointer) -> PageAnswer {
    if lost.contains(page) { return .lost }
    if let left = pendings[page], left > 0 {
      pendings[page] = left - 1
      return .pending
    }
    content.withUnsafeBytes {
      buffer.copyMemory(from: $0.baseAddress! + page * Page.bytes, byteCount: Page.bytes)
    }
    return .bytes
  }
}

/// Keeps what comes, and how often.
final class ArraySink: PageSink {
  var content: [UInt8]
  var times: [Int]
  var arrivals: [Arrival?]
  var goneReason: String?
  var installed = 0
  init(pageCount: Int) {
    content = Array(repeating: 0xee, count: pageCount * Page.bytes)
    times = Array(repeating: 0, count: pageCount)
    arrivals = Array(repeating: nil, count: pageCount)
  }

  func isMissing(_ page: PageIndex) -> Bool { times[page] == 0 }

  func install(_ pages: PageRange, bytes: UnsafeRawPointer?, how: Arrival) -> Bool {
    for page in pages {
      times[page] += 1
      arrivals[page] = how
    }
    installed += pages.count
    content.withUnsafeMutableBytes {
      let target = $0.baseAddress! + pages.lowerBound * Page.bytes
      if let bytes {
        target.copyMemory(from: bytes, byteCount: pages.count * Page.bytes)
      } else {
        target.initializeMemory(as: UInt8.self, repeating: 0, count: pages.count * Page.bytes)
      }
    }
    return true
  }

  func originGone(_ reason: String) { goneReason = reason }
}

/// Runs servers and receivers on this thread, with the clock of the machine.
final class Loop {
  private let epoll: Epoll
  private let timer: TimerDescriptor
  var servers: [PageServer] = []
  var receivers: [PageReceiver] = []

  init() throws {
    epoll = try Epoll()
    timer = try TimerDescriptor()
    try epoll.add(timer.descriptor, .readable, tag: 0)
  }

  func add(_ server: PageServer) throws {
    servers.append(server)
    for descriptor in server.descriptors { try epoll.add(descriptor, .readable, tag: 1) }
  }

  func removeServers() {
    for server in servers { for descriptor in server.descriptors { epoll.remove(descriptor) } }
    servers = []
  }

  func add(_ receiver: PageReceiver) throws {
    receivers.append(receiver)
    for descriptor in receiver.descriptors { try epoll.add(descriptor, .readable, tag: 1) }
  }

  /// Until `isDone`; false: not within `seconds`, which is there to end a test that hangs.
  func run(seconds: UInt64 = 60, until isDone: () -> Bool) throws -> Bool {
    let end = monotonicNanoseconds() + seconds * 1_000_000_000
    while !isDone() {
      let now = monotonicNanoseconds()
      if now > end { return false }
      let deadlines = servers.compactMap(\.nextDeadline) + receivers.compactMap(\.nextDeadline)
      timer.set(min(deadlines.min() ?? end, end))
      _ = try epoll.wait(timeoutMilliseconds: 1000)
      timer.clear()
      for server in servers { server.readable(now: monotonicNanoseconds()) }
      for receiver in receivers { receiver.readable(now: monotonicNanoseconds()) }
    }
    return true
  }
}
