import Foundation
import GuestMemory
import LinuxSystem
import Mcdist
import Testing

@Suite(.serialized) struct DriverTests {
  static let key = (0..<32).map { UInt8($0) }

  struct Setting {
    let loop: Loop
    let content: [UInt8]
    let provider: ArrayProvider
    var server: PageServer

    init(pages: Int, transport: TransportMode, seed: UInt64, workingSet: [PageRange] = []) throws {
      loop = try Loop()
      content = makePages(pages, seed: seed)
      provider = ArrayProvider(content)
      server = try PageServer(
        .init(
          address: "127.0.0.1", transport: transport, key: DriverTests.key, pageCount: pages,
          workingSet: workingSet), provider: provider)
      try loop.add(server)
    }

    func receiver(
      _ transport: TransportMode, key: [UInt8] = DriverTests.key, silence: UInt64 = 15_000_000_000
    ) throws
      -> (PageReceiver, ArraySink)
    {
      let pages = content.count / Page.bytes
      let sink = ArraySink(pageCount: pages)
      let receiver = try PageReceiver(
        .init(
          origin: server.origin, transport: transport, key: key, localAddress: "127.0.0.1", pageCount: pages,
          silence: silence), sink: sink)
      try loop.add(receiver)
      return (receiver, sink)
    }
  }

  @Test(arguments: [TransportMode.unicast, .multicast, .auto])
  func everyPageComesRightAndOnce(transport: TransportMode) throws {
    let pages = 3000
    let setting = try Setting(pages: pages, transport: transport, seed: 1)
    var sinks: [ArraySink] = []
    for _ in 0..<3 {
      let (receiver, sink) = try setting.receiver(transport)
      receiver.prefetch(0..<pages, now: monotonicNanoseconds())
      sinks.append(sink)
    }
    #expect(try setting.loop.run { sinks.allSatisfy { $0.installed == pages } })
    for sink in sinks {
      #expect(sink.content == setting.content)
      #expect(sink.times.allSatisfy { $0 == 1 })
    }
    for receiver in setting.loop.receivers {
      #expect(receiver.counters.dropped == 0)
      #expect(receiver.transport == (transport == .unicast ? .unicast : .multicast))
    }
    let counters = setting.server.counters
    #expect(counters.dropped == 0)
    if transport == .multicast { #expect(counters.lockstepSuppressed > 0) }
  }

  @Test func aDemandedPageComesAndOthersHearIt() throws {
    let setting = try Setting(pages: 100, transport: .auto, seed: 2)
    let (first, sink) = try setting.receiver(.auto)
    let (other, otherSink) = try setting.receiver(.auto)
    first.demand(7..<8, now: monotonicNanoseconds())
    #expect(try setting.loop.run { sink.installed == 1 && otherSink.installed == 1 })
    #expect(sink.arrivals[7] == .demanded)
    #expect(otherSink.arrivals[7] == .prefetched)
    #expect(other.counters.eavesdropped == 1)
    #expect(setting.server.counters.served == 1)
  }

  @Test func aPageThatIsPendingComesLater() throws {
    let setting = try Setting(pages: 10, transport: .unicast, seed: 3)
    setting.provider.pendings[4] = 5
    let (receiver, sink) = try setting.receiver(.unicast)
    receiver.demand(4..<5, now: monotonicNanoseconds())
    #expect(try setting.loop.run { sink.installed == 1 })
    #expect(sink.content[4 * 4096..<5 * 4096] == setting.content[4 * 4096..<5 * 4096])
  }

  @Test func theWorkingSetComesUnasked() throws {
    let setting = try Setting(pages: 600, transport: .auto, seed: 4, workingSet: [100..<300, 10..<12])
    let (receiver, sink) = try setting.receiver(.auto)
    receiver.demand(0..<1, now: monotonicNanoseconds())
    #expect(try setting.loop.run { sink.installed == 203 })
    #expect(receiver.counters.requests >= 1)
  }

  @Test func pushBringsAll() throws {
    let setting = try Setting(pages: 2000, transport: .auto, seed: 5)
    let (receiver, sink) = try setting.receiver(.auto)
    receiver.markPresent(0..<100)
    receiver.setPush(true, now: monotonicNanoseconds())
    #expect(try setting.loop.run { sink.installed == 1900 })
    #expect(sink.times[..<100].allSatisfy { $0 == 0 })
    #expect(sink.arrivals[1999] == .pushed)
    #expect(sink.content.dropFirst(100 * 4096) == setting.content.dropFirst(100 * 4096))
  }

  @Test func aLostPageAndALateReceiverLearnTheReason() throws {
    let setting = try Setting(pages: 10, transport: .auto, seed: 6)
    setting.provider.lost = [3]
    let (receiver, sink) = try setting.receiver(.auto)
    receiver.demand(3..<4, now: monotonicNanoseconds())
    #expect(try setting.loop.run { sink.goneReason != nil })
    #expect(sink.goneReason == "page 3 is not to be had any more")
    #expect(sink.installed == 0)
    let (late, lateSink) = try setting.receiver(.unicast)
    late.demand(1..<2, now: monotonicNanoseconds())
    #expect(try setting.loop.run { lateSink.goneReason != nil })
    #expect(lateSink.installed == 0)
  }

  @Test func aSilentOriginIsGone() throws {
    let setting = try Setting(pages: 10, transport: .auto, seed: 7)
    let (receiver, sink) = try setting.receiver(.auto, silence: 300_000_000)
    setting.loop.removeServers()
    receiver.demand(3..<4, now: monotonicNanoseconds())
    #expect(try setting.loop.run { sink.goneReason != nil })
    #expect(sink.goneReason == "it does not answer")
  }

  @Test func anotherKeyGetsNothingAndIsCounted() throws {
    let setting = try Setting(pages: 10, transport: .unicast, seed: 8)
    let (stranger, sink) = try setting.receiver(.unicast, key: [UInt8](repeating: 9, count: 32))
    stranger.demand(3..<4, now: monotonicNanoseconds())
    #expect(try setting.loop.run { setting.server.counters.dropped >= 3 })
    #expect(sink.installed == 0)
    #expect(setting.server.counters.bytesSent == 0)
  }

  @Test func aServerThatStartsAgainGoesOnWhereItsClientsAre() throws {
    let pages = 4000
    var setting = try Setting(pages: pages, transport: .auto, seed: 9)
    let (receiver, sink) = try setting.receiver(.auto)
    receiver.prefetch(0..<pages, now: monotonicNanoseconds())
    #expect(try setting.loop.run { sink.installed > pages / 4 })
    let origin = setting.server.origin
    setting.loop.removeServers()
    let second = {
      try PageServer(
        .init(
          address: origin.address, key: Self.key, pageCount: pages, port: origin.port, group: origin.group,
          groupPort: origin.groupPort), provider: setting.provider)
    }
    #expect(throws: SystemError.self) { try second() }  // the first has the port still
    setting.server = try PageServer(
      .init(address: "127.0.0.1", key: Self.key, pageCount: 1), provider: setting.provider)
    let server = try second()
    #expect(server.origin == origin)
    try setting.loop.add(server)
    #expect(try setting.loop.run { sink.installed == pages })
    #expect(sink.content == setting.content)
    #expect(sink.times.allSatisfy { $0 == 1 })
  }

  /// An attacker without the key, on the group and at the client's port: garbage, and recorded datagrams changed.
  @Test func garbageIsDroppedAndCounted() throws {
    let pages = 500
    let setting = try Setting(pages: pages, transport: .multicast, seed: 10)
    let (receiver, sink) = try setting.receiver(.multicast)
    let origin = setting.server.origin
    let attacker = try DatagramSocket(try .init("127.0.0.1", port: 0), isShared: false, bufferBytes: 1 << 20)
    let local = try DatagramEndpoint("127.0.0.1", port: 0)
    try attacker.sendMulticast(from: local.address, timeToLive: 1)
    let spy = try DatagramSocket(
      try .init(origin.group, port: origin.groupPort), isShared: true, bufferBytes: 1 << 20)
    try spy.join(group: try DatagramEndpoint(origin.group, port: 0).address, interface: local.address)
    receiver.demand(0..<20, now: monotonicNanoseconds())
    #expect(try setting.loop.run { sink.installed == 20 })
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: DatagramSocket.receiveBytes, alignment: 16)
    defer { buffer.deallocate() }
    var random = SplitMix(state: 10)
    var sent: UInt64 = 0
    let group = try DatagramEndpoint(origin.group, port: origin.groupPort)
    var recorded: [[UInt8]] = []
    while let heard = spy.receive(into: buffer) { recorded.append(Array(buffer[..<heard.bytes])) }
    for var datagram in recorded {
      _ = datagram.withUnsafeBytes { attacker.send($0, to: group) }  // replayed
      datagram[Int.random(in: 0..<datagram.count, using: &random)] ^= UInt8.random(
        in: 1...255, using: &random)
      _ = datagram.withUnsafeBytes { attacker.send($0, to: group) }  // altered
      sent += 2
    }
    #expect(sent > 0)
    #expect(try setting.loop.run { receiver.counters.dropped >= sent })
    receiver.prefetch(0..<pages, now: monotonicNanoseconds())
    #expect(try setting.loop.run { sink.installed == pages })
    #expect(sink.content == setting.content)
    #expect(sink.times.allSatisfy { $0 == 1 })
  }
}
