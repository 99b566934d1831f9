import CloneNetwork
import Foundation
import Glibc
import LinuxSystem
import Testing

/// One direction of a slow link, in passed-in time.
@Suite struct LinkQueueTests {
  private let second: UInt64 = 1_000_000_000

  @Test func framesLeaveOneBehindTheOtherAndArriveAfterTheDelay() {
    var queue = LinkQueue(LinkRate(bytesPerSecond: 1000, delayNanoseconds: 50_000_000))
    let nothing = queue.pop(now: second)
    #expect(queue.nextDue == nil && nothing == nil)
    for number in 0..<3 {
      let isTaken = queue.push([UInt8](repeating: UInt8(number), count: 100), now: second)
      #expect(isTaken)
    }
    // 100 bytes take 100 ms.
    for number in 0..<3 {
      let due = second + UInt64(number + 1) * 100_000_000 + 50_000_000
      #expect(queue.nextDue == due)
      let early = queue.pop(now: due - 1), punctual = queue.pop(now: due)
      #expect(early == nil && punctual == [UInt8](repeating: UInt8(number), count: 100))
    }
    // The link has rested since.
    queue.push([9], now: 10 * second)
    #expect(queue.nextDue == 10 * second + 1_000_000 + 50_000_000)
  }

  @Test func whatFindsTooMuchWaitingIsDropped() {
    var queue = LinkQueue(LinkRate(bytesPerSecond: 100_000, delayNanoseconds: 0))
    let frame = [UInt8](repeating: 1, count: 1000)
    var taken = 0
    while queue.push(frame, now: second) { taken += 1 }
    #expect(queue.limitBytes == 50_000 && (50...52).contains(taken) && queue.dropped == 1)
    // Half of it has left a quarter of a second later.
    let later = second + second / 4
    var more = 0
    while queue.push(frame, now: later) { more += 1 }
    #expect((24...26).contains(more))
    var arrived = 0
    while queue.pop(now: .max) != nil { arrived += 1 }
    #expect(arrived == taken + more && queue.nextDue == nil)
  }

  @Test func aNewRateIsForWhatComesAfterIt() {
    var queue = LinkQueue(LinkRate(bytesPerSecond: 1000, delayNanoseconds: 100_000_000))
    queue.push([1], now: second)
    queue.rate = LinkRate(bytesPerSecond: 1_000_000, delayNanoseconds: 0)
    queue.push([2], now: second)
    let early = queue.pop(now: second + 100_999_999)
    let both = [queue.pop(now: second + 101_000_000), queue.pop(now: second + 101_000_000)]
    #expect(early == nil && both == [[1], [2]])
    queue.push([3], now: 2 * second)
    #expect(queue.nextDue == 2 * second + 1000)
  }

  /// Whatever is sent when: what arrives is what was not dropped, in order, and no faster than the rate.
  @Test(arguments: 0..<20) func orderAndRateOfAnyTraffic(seed: UInt64) {
    var random = Numbers(state: seed)
    var queue = LinkQueue(LinkRate(bytesPerSecond: 200_000, delayNanoseconds: 7_000_000))
    var now: UInt64 = 5, sent: [[UInt8]] = [], received: [[UInt8]] = [], last: UInt64 = 0, bytes: UInt64 = 0
    for number in 0..<3000 {
      now += random.next() % 10_000_000
      let frame =
        withUnsafeBytes(of: UInt32(number)) { Array($0) }
        + [UInt8](repeating: 0, count: Int(random.next() % 1400))
      if queue.push(frame, now: now) { sent.append(frame) }
      while let due = queue.nextDue, let arrived = queue.pop(now: now) {
        #expect(due >= last)
        last = due
        received.append(arrived)
        bytes += UInt64(arrived.count)
        #expect(bytes * 1000 <= 200_000 * (due / 1_000_000) + 1000)
      }
    }
    while let arrived = queue.pop(now: .max) { received.append(arrived) }
    #expect(received == sent && sent.count > 100)
  }

  private struct Numbers {
    var state: UInt64
    mutating func next() -> UInt64 {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return state >> 33
    }
  }
}

/// The relay between real taps of two namespaces, with the kernel's own network on both sides.
@Suite(.serialized, .timeLimit(.minutes(2))) struct LinkRelayTests {
  /// Two namespaces joined by a relay, 192.0.2.1 and 192.0.2.2.
  private final class Pair {
    let names: [String]
    private let end = EndFlag()
    private var thread: NamedThread?

    init(up: LinkRate, down: LinkRate) throws {
      let tag = "sfl\(getpid())-\(UInt32.random(in: 0 ..< .max))"
      names = [tag + "a", tag + "b"]
      let spaces = try names.map { try NetworkNamespace.make(named: $0) }
      let relay = try LinkRelay(near: "eth0", in: spaces[0], far: "eth0", in: spaces[1], up: up, down: down)
      for (index, name) in names.enumerated() {
        try runTool("ip -n \(name) addr add 192.0.2.\(index + 1)/24 dev eth0")
        try runTool("ip -n \(name) link set eth0 up")
      }
      nonisolated(unsafe) let running = relay
      thread = try NamedThread("link-relay") { [end] in try? running.run { !end.isSet } }
    }

    func close() throws {
      end.set()
      thread?.join()
      for name in names { try NetworkNamespace.remove(named: name) }
    }

    /// The mean round trip in milliseconds.
    func ping(_ options: String) throws -> Double {
      let text = try runTool("ip netns exec \(names[0]) ping -q \(options) 192.0.2.2")
      let figures = text.split(separator: "\n").last { $0.contains("min/avg/max") }
      return try #require(figures?.split(separator: "/").dropFirst(4).first.flatMap { Double($0) }, "\(text)")
    }
  }

  private final class EndFlag: @unchecked Sendable {
    private let event = try! EventDescriptor()
    func set() { event.signal() }
    var isSet: Bool {
      var poll = pollfd(fd: event.descriptor.raw, events: Int16(POLLIN), revents: 0)
      return Glibc.poll(&poll, 1, 0) == 1
    }
  }

  @Test func aSlowLinkIsManyTimesSlowerThanAFastOne() throws {
    let fast = try Pair(
      up: .init(bytesPerSecond: 1 << 30, delayNanoseconds: 0),
      down: .init(bytesPerSecond: 1 << 30, delayNanoseconds: 0))
    defer { try? fast.close() }
    let slow = try Pair(
      up: .init(bytesPerSecond: 1 << 30, delayNanoseconds: 150_000_000),
      down: .init(bytesPerSecond: 1 << 30, delayNanoseconds: 150_000_000))
    defer { try? slow.close() }
    for pair in [fast, slow] { _ = try pair.ping("-c 1") }  // ARP
    let quick = try fast.ping("-c 5 -i 0.2"), late = try slow.ping("-c 5 -i 0.2")
    #expect(late >= 300 && late > 3 * quick, "\(quick) ms and \(late) ms")
  }

  /// A stream of 400 KB each way at the same time; in one of them the link is ten times slower.
  @Test func bytesArriveAsTheyWereSentInBothDirections() throws {
    let pair = try Pair(
      up: .init(bytesPerSecond: 100_000, delayNanoseconds: 1_000_000),
      down: .init(bytesPerSecond: 1_000_000, delayNanoseconds: 1_000_000))
    defer { try? pair.close() }
    let script = """
      import hashlib, random, socket, sys, threading, time
      data = random.Random(7).randbytes(400000)
      if sys.argv[1] == "serve":
          listener = socket.create_server(("192.0.2.2", 4000))
          print("serving", flush=True)
          connection, _ = listener.accept()
      else:
          connection = socket.create_connection(("192.0.2.2", 4000))
      begin = time.monotonic()
      def send():
          connection.sendall(data)
          connection.shutdown(socket.SHUT_WR)
      sender = threading.Thread(target=send)
      sender.start()
      received = b""
      while part := connection.recv(65536):
          received += part
      took = time.monotonic() - begin
      sender.join()
      print("right" if received == data else "wrong", took)
      """
    let file = "/tmp/\(pair.names[0]).py"
    try script.write(toFile: file, atomically: true, encoding: .utf8)
    defer { unlink(file) }
    let server = Process(), output = Pipe()
    server.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    server.arguments = ["ip", "netns", "exec", pair.names[1], "python3", file, "serve"]
    server.standardOutput = output
    try server.run()
    #expect(String(decoding: output.fileHandleForReading.availableData, as: UTF8.self).hasPrefix("serving"))
    let client = try runTool("ip netns exec \(pair.names[0]) python3 \(file) call")
    let rest = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    let served = rest.trimmingCharacters(in: .newlines)
    server.waitUntilExit()
    #expect(client.hasPrefix("right ") && served.hasPrefix("right "), "\(client), \(served)")
    func seconds(_ line: String) -> Double {
      Double(line.split(separator: " ").last.map { $0.trimmingCharacters(in: .newlines) } ?? "") ?? 0
    }
    // What came up the slow direction took 4 s at 100 KB a second; what came down a tenth of it.
    #expect(seconds(served) > 3, "400,000 bytes in \(served) at 100,000 a second")
    #expect(seconds(served) > seconds(client), "\(served) and \(client)")
  }
}
