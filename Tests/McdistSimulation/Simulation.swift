import GuestMemory
import Mcdist

/// One server and its clients on a network in simulated time: the protocol's own state machines, chance from a seed.
/// A page is one packet, and so is a parity. Deterministic: the same plan gives the same run.
public struct SimulationPlan: Sendable {
  public var pages = 512
  public var clients = 4
  public var seed: UInt64 = 1
  /// Of each packet and receiver.
  public var loss = 0.0
  public var duplication = 0.0
  /// Comes up to 5 ms late.
  public var reordering = 0.0
  /// One way, nanoseconds.
  public var latency: UInt64 = 50_000
  /// The server's link, bytes a second; it keeps 2 MB, what is more is lost.
  public var linkRate = 1e9
  /// This client's own link; beyond it packets are lost. Nil: as fast as the server's.
  public var slow: (client: Int, rate: Double)?
  /// Clients that no multicast reaches.
  public var withoutMulticast: Set<Int> = []
  /// Hears and says nothing in this time.
  public var cutOff: [Int: Range<UInt64>] = [:]
  public var serverRestart: UInt64?
  /// Says this as its receive rate, and each request twenty times as retries.
  public var liar: (client: Int, rate: UInt32)?
  /// Demands pages one after the other; the others prefetch all.
  public var demanding: Set<Int> = []
  public var server = ServerConfiguration()
  public var client = ClientConfiguration()
  public static let pageBytes = 4300
  public init() {}
}

public final class Simulation {
  private struct Packet {
    /// Nil: a parity of the block.
    var page: PageIndex?
    /// Nil: by unicast, or a parity.
    var counter: UInt64?
    /// Nil: by unicast.
    var block: SimulatedBlock?
    /// Whose request is answered, and what that said is the time.
    var echo: (client: UInt32, time: UInt64)?
  }
  private enum Event {
    case request(PageRequest)
    case page(client: Int, Packet)
    case multicast(Packet)
    case wakeServer
    case wakeClient(Int)
    case restart
  }
  public let plan: SimulationPlan
  public private(set) var now: UInt64 = 1_000_000
  private var random: SplitMix
  private var events = Heap<Event>()
  public private(set) var server: ServerMachine
  public private(set) var clients: [ClientMachine] = []
  private var indices: [UInt32: Int] = [:]
  private var serverInstance: UInt64 = 1
  private var counter: UInt64 = 0
  private var block = SimulatedBlock(number: 0)
  private var heardBlocks: [HeardBlocks]
  private var echoes: [(client: UInt32, time: UInt64, at: UInt64)] = []
  private var echoed = 0
  private var linkFree: UInt64 = 0
  private var slowFree: UInt64 = 0
  private var serverWake = UInt64.max
  private var clientWakes: [UInt64]
  /// What happened.
  public private(set) var missing: [Int]
  public private(set) var finishedAt: [UInt64?]
  public private(set) var newTwice = 0
  private var has: [[Bool]]
  public private(set) var bytesSent = 0
  public private(set) var packetsSent = 0
  public private(set) var paritiesSent = 0
  public private(set) var servedBefore = ServerMachineCounters()
  public private(set) var requestPackets = 0
  public private(set) var rates: [(time: UInt64, bytesPerSecond: Double)] = []
  public private(set) var ratesByUnicast = 0

  public init(_ plan: SimulationPlan) {
    self.plan = plan
    random = SplitMix(state: plan.seed)
    server = ServerMachine(pageCount: plan.pages, configuration: plan.server)
    heardBlocks = Array(repeating: HeardBlocks(), count: plan.clients)
    clientWakes = Array(repeating: .max, count: plan.clients)
    missing = Array(repeating: plan.pages, count: plan.clients)
    finishedAt = Array(repeating: nil, count: plan.clients)
    has = Array(repeating: Array(repeating: false, count: plan.pages), count: plan.clients)
    for index in 0..<plan.clients {
      let machine = ClientMachine(pageCount: plan.pages, configuration: plan.client, seed: random.next())
      indices[machine.clientIdentifier] = index
      clients.append(machine)
      if plan.demanding.contains(index) {
        clients[index].demand(0..<1, now: now)
      } else {
        clients[index].prefetch(0..<plan.pages, now: now)
      }
      wakeClient(index, at: now + random.next() % 1_000_000)
    }
    if let restart = plan.serverRestart { events.push(restart, .restart) }
  }

  public var isDone: Bool { missing.allSatisfy { $0 == 0 } }

  /// Until all clients have all pages, or `limit` of simulated time. True: they have.
  public func run(limit: UInt64) -> Bool {
    while !isDone, let (time, event) = events.pop() {
      now = max(now, time)
      if now > limit { return false }
      handle(event)
    }
    return isDone
  }

  private func handle(_ event: Event) {
    switch event {
    case .request(let request):
      server.receive(request, now: now)
      if echoes.count < 1024 { echoes.append((request.client, request.clientTime, now)) }
      serve()
    case .page(let client, let packet): deliver(packet, to: client)
    case .multicast(let packet):
      for client in 0..<plan.clients where !plan.withoutMulticast.contains(client) {
        transit(packet, to: client)
      }
    case .wakeServer:
      serverWake = .max
      serve()
    case .wakeClient(let client):
      clientWakes[client] = .max
      ask(client)
    case .restart:
      servedBefore = server.counters
      server = ServerMachine(pageCount: plan.pages, configuration: plan.server)
      serverInstance += 1
      counter = 0
      block = SimulatedBlock(number: block.number + 1)
    }
  }

  private func serve() {
    while let transmission = server.next(now: now) {
      server.sent(bytes: SimulationPlan.pageBytes, pages: 1, now: now)
      packetsSent += 1
      if packetsSent % 256 == 0 { rates.append((now, server.rateLimitBytesPerSecond)) }
      switch transmission.to {
      case .multicast:
        server.sent(transmission.page, in: counter)
        block.pages.append(transmission.page)
        put(.multicast(Packet(page: transmission.page, counter: counter, block: block, echo: echo())))
        counter += 1
        if block.isWhole { repair() }
      case .unicast(let id):
        ratesByUnicast += 1
        let packet = Packet(page: transmission.page, echo: echo())
        guard let client = indices[id], random.unit() >= plan.loss else { continue }
        put(.page(client: client, packet))
      }
    }
    if let deadline = server.nextDeadline(now: now), deadline < serverWake {
      serverWake = max(deadline, now + 1)
      events.push(serverWake, .wakeServer)
    }
  }

  /// The parities of the block that has just been sent.
  private func repair() {
    for _ in 0..<server.paritiesPerBlock(now: now) {
      server.sent(bytes: SimulationPlan.pageBytes, pages: 0, now: now)
      paritiesSent += 1
      put(.multicast(Packet(block: block)))
    }
    block = SimulatedBlock(number: block.number + 1)
  }

  /// Onto the server's link.
  private func put(_ event: Event) {
    bytesSent += SimulationPlan.pageBytes
    let free = max(linkFree, now) + UInt64(Double(SimulationPlan.pageBytes) / plan.linkRate * 1e9)
    guard Double(free - now) / 1e9 * plan.linkRate < 2e6 else { return }
    linkFree = free
    events.push(linkFree + plan.latency, event)
  }

  /// The next request to be echoed, as if it had come just now.
  private func echo() -> (client: UInt32, time: UInt64)? {
    guard echoed < echoes.count else {
      (echoes, echoed) = ([], 0)
      return nil
    }
    let next = echoes[echoed]
    echoed += 1
    return (next.client, next.time + (now - next.at))
  }

  /// One receiver's share of a multicast packet.
  private func transit(_ packet: Packet, to client: Int) {
    if plan.loss > 0, random.unit() < plan.loss { return }
    if plan.duplication > 0, random.unit() < plan.duplication {
      events.push(now + random.next() % 1_000_000, .page(client: client, packet))
    }
    if plan.reordering > 0, random.unit() < plan.reordering {
      events.push(now + random.next() % 5_000_000, .page(client: client, packet))
      return
    }
    deliver(packet, to: client)
  }

  private func deliver(_ packet: Packet, to client: Int) {
    if let cut = plan.cutOff[client], cut.contains(now) { return }
    if let slow = plan.slow, slow.client == client {
      guard Double(max(slowFree, now) - now) / 1e9 * slow.rate < 256e3 else { return }
      slowFree = max(slowFree, now) + UInt64(Double(SimulationPlan.pageBytes) / slow.rate * 1e9)
    }
    clients[client].heard(
      bytes: SimulationPlan.pageBytes, multicast: packet.counter.map { (serverInstance, $0) }, now: now)
    if let echo = packet.echo, echo.client == clients[client].clientIdentifier {
      clients[client].heardEcho(of: echo.time, now: now)
    }
    if let page = packet.page {
      take(page, client)
      if let block = packet.block, let counter = packet.counter { heardBlocks[client].add(block, counter) }
    } else if let block = packet.block {
      for page in heardBlocks[client].addParity(of: block) { take(page, client) }
    }
    ask(client)
  }

  private func take(_ page: PageIndex, _ client: Int) {
    guard case .new = clients[client].received(page, now: now) else { return }
    if has[client][page] { newTwice += 1 }
    has[client][page] = true
    missing[client] -= 1
    if missing[client] == 0 { finishedAt[client] = now }
    if plan.demanding.contains(client), let next = has[client].firstIndex(of: false) {
      clients[client].demand(next..<next + 1, now: now)
    }
  }

  private func ask(_ client: Int) {
    if let deadline = clients[client].nextDeadline(now: now), deadline <= now {
      while var request = clients[client].nextRequest(now: now) {
        var copies = 1
        if let liar = plan.liar, liar.client == client {
          request.receiveRate = liar.rate
          for index in request.runs.indices { request.runs[index].isRetry = true }
          copies = 20
        }
        requestPackets += copies
        if let cut = plan.cutOff[client], cut.contains(now) { continue }
        for _ in 0..<copies where random.unit() >= plan.loss {
          events.push(now + plan.latency + random.next() % 20_000, .request(request))
        }
      }
    }
    if let deadline = clients[client].nextDeadline(now: now) { wakeClient(client, at: deadline) }
  }

  private func wakeClient(_ client: Int, at time: UInt64) {
    guard time < clientWakes[client] else { return }
    clientWakes[client] = max(time, now + 1)
    events.push(clientWakes[client], .wakeClient(client))
  }
}
