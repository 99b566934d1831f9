import Mcdist
import McdistSimulation
import Testing

/// The state machines on a simulated network. A failure names its seed: the run is the same with it.
@Suite struct SimulationTests {
  private func check(_ plan: SimulationPlan, within seconds: Double = 60) -> Simulation {
    let simulation = Simulation(plan)
    let isDone = simulation.run(limit: UInt64(seconds * 1e9))
    #expect(isDone, "seed \(plan.seed), loss \(plan.loss): missing \(simulation.missing)")
    #expect(simulation.newTwice == 0, "seed \(plan.seed)")
    return simulation
  }

  @Test(arguments: [0, 0.01, 0.05, 0.2])
  func everyPageArrives(loss: Double) {
    for seed in 1...20 as ClosedRange<UInt64> {
      var plan = SimulationPlan()
      plan.seed = seed
      plan.loss = loss
      plan.duplication = seed % 2 == 0 ? 0.05 : 0
      plan.reordering = seed % 3 == 0 ? 0.1 : 0
      plan.demanding = seed % 4 == 0 ? [0, 1] : []
      let simulation = check(plan)
      let bytes = plan.pages * SimulationPlan.pageBytes
      #expect(simulation.bytesSent >= bytes)
    }
  }

  @Test func identicalRequestsAreAnsweredOnce() {
    var plan = SimulationPlan()
    plan.clients = 32
    let simulation = check(plan)
    let counters = simulation.server.counters
    #expect(counters.requests >= UInt64(32 * plan.pages / 2))
    #expect(counters.served < UInt64(plan.pages * 2))
    #expect(counters.lockstepSuppressed > counters.requests / 2)
  }

  @Test func aCutOffHostAndAStalledOneComeBackAndHoldNobodyUp() {
    for seed in 1...10 as ClosedRange<UInt64> {
      var plan = SimulationPlan()
      plan.seed = seed
      plan.loss = 0.01
      plan.cutOff = [1: 5_000_000..<10_005_000_000]
      let simulation = check(plan)
      for client in [0, 2, 3] { #expect(simulation.finishedAt[client]! < 5_000_000_000, "seed \(seed)") }
      #expect(simulation.finishedAt[1]! > 10_000_000_000)
    }
  }

  @Test func aServerThatStartsAgainGoesOn() {
    for seed in 1...10 as ClosedRange<UInt64> {
      var plan = SimulationPlan()
      plan.seed = seed
      plan.pages = 2000
      plan.serverRestart = 12_000_000
      let simulation = check(plan)
      #expect(simulation.servedBefore.served > 0)
      #expect(simulation.server.counters.served > 0)
    }
  }

  @Test(arguments: [0, 1, UInt32.max])
  func aLiarNeitherStopsNorBlowsUpTheServer(rate: UInt32) {
    for seed in 1...5 as ClosedRange<UInt64> {
      var plan = SimulationPlan()
      plan.seed = seed
      plan.pages = 2000
      plan.loss = 0.01
      plan.liar = (client: 0, rate: rate)
      let simulation = check(plan)
      #expect(simulation.server.rateLimitBytesPerSecond >= plan.server.floorRate)
      #expect(simulation.bytesSent < 8 * plan.pages * SimulationPlan.pageBytes, "seed \(seed)")
    }
  }

  /// Without repair each page would be sent twice.
  @Test func paritiesTakeThePlaceOfSendingPagesAgain() {
    for seed in 1...3 as ClosedRange<UInt64> {
      var plan = SimulationPlan()
      plan.seed = seed
      plan.pages = 8000
      plan.clients = 32
      plan.loss = 0.01
      let simulation = check(plan)
      #expect(simulation.paritiesSent > plan.pages / 64)
      #expect(simulation.bytesSent < plan.pages * SimulationPlan.pageBytes * 5 / 4, "seed \(seed)")
    }
  }

  @Test func aHostWithoutMulticastGetsUnicastByItself() {
    for seed in 1...5 as ClosedRange<UInt64> {
      var plan = SimulationPlan()
      plan.seed = seed
      plan.withoutMulticast = [2]
      let simulation = check(plan)
      #expect(simulation.clients[2].isUnicast)
      #expect(simulation.clients[2].transportReason == "no multicast arrives")
      #expect(!simulation.clients[1].isUnicast)
      #expect(simulation.ratesByUnicast >= plan.pages / 2)
    }
  }

  @Test func aSlowReceiverDoesNotStarveTheOthers() {
    var plan = SimulationPlan()
    plan.clients = 8
    plan.pages = 1000
    plan.slow = (client: 3, rate: 4e6)
    let simulation = check(plan)
    let others = simulation.finishedAt.enumerated().filter { $0.offset != 3 }.map { $0.element! }
    #expect(others.max()! < simulation.finishedAt[3]!)
  }

  @Test func randomLossDoesNotSlowTheServerDown() {
    var plan = SimulationPlan()
    plan.clients = 32
    plan.pages = 8000
    plan.loss = 0.05
    let simulation = check(plan)
    #expect(simulation.server.rateLimitBytesPerSecond > plan.server.initialRate / 2)
  }

  @Test func congestionDoes() {
    var plan = SimulationPlan()
    plan.pages = 8000
    plan.linkRate = 20e6
    let simulation = check(plan)
    #expect(simulation.server.rateLimitBytesPerSecond < 40e6)
    #expect(simulation.bytesSent < 3 * plan.pages * SimulationPlan.pageBytes)
  }

  /// What most receivers lose is lost for want of room: unicast for each of them would need many times as much.
  @Test func congestionDrivesNobodyToUnicast() {
    for (clients, rate) in [(32, 5e6), (32, 20e6), (8, 2.5e6)] {
      var plan = SimulationPlan()
      plan.clients = clients
      plan.pages = 4000
      plan.linkRate = rate
      plan.loss = 0.01
      let simulation = check(plan)
      #expect(simulation.bytesSent < 3 * plan.pages * SimulationPlan.pageBytes)
    }
  }

  /// Counters of any order, of restarted servers and after long pauses are figures, never a trap.
  @Test func aClientStandsAnyCounters() {
    for seed in 1...20 as ClosedRange<UInt64> {
      var random = SplitMix(state: seed)
      var client = ClientMachine(pageCount: 2000, seed: seed)
      var (now, base, instance) = (
        UInt64(1_000_000), UInt64.random(in: 0..<1 << 60, using: &random), UInt64(1)
      )
      client.prefetch(0..<2000, now: now)
      for _ in 0..<5000 {
        now += .random(
          in: 0..<(Int.random(in: 0..<500, using: &random) == 0 ? 9_000_000_000 : 2_000_000), using: &random)
        if Int.random(in: 0..<1000, using: &random) == 0 {
          (instance, base) = (instance + 1, .random(in: 0..<1000, using: &random))
        }
        base += .random(in: 0...3, using: &random)
        let back = UInt64.random(in: 0..<300, using: &random)
        client.heard(bytes: 1400, multicast: (instance, base > back ? base - back : base), now: now)
        _ = client.received(.random(in: 0..<2000, using: &random), now: now)
        while let request = client.nextRequest(now: now) { #expect(!request.runs.isEmpty) }
      }
    }
  }

  @Test func theWorkingSetIsSentUnasked() {
    var machine = ServerMachine(
      pageCount: 100,
      configuration: {
        var configuration = ServerConfiguration()
        configuration.workingSet = [10..<20]
        return configuration
      }())
    let request = PageRequest(
      client: 1, sequence: 1, receiveRate: 0, roundTrip: 0, wantsUnicast: false, clientTime: 0,
      runs: [.init(first: 50, count: 1, urgency: .demand)])
    machine.receive(request, now: 1_000_000)
    var pages: [Int] = []
    while let next = machine.next(now: 1_000_000) { pages.append(next.page) }
    #expect(pages == [50] + Array(10..<20))
  }

  /// Who has a standby is sent of the working set what it lacks, and all of it if that is not known; it gets what it asks
  /// for in any case.
  @Test(arguments: [true, false]) func theWorkingSetOfAWarmHostIsWhatItLacks(isUnicast: Bool) {
    var configuration = ServerConfiguration()
    configuration.workingSet = [10..<20]
    var machine = ServerMachine(pageCount: 100, configuration: configuration)
    func sent(to client: UInt32, isWarm: Bool, at now: UInt64) -> [Int] {
      machine.receive(
        PageRequest(
          client: client, sequence: 1, receiveRate: 0, roundTrip: 0, wantsUnicast: isUnicast, isWarm: isWarm,
          clientTime: 0, runs: [.init(first: 12, count: 1, urgency: .demand)]), now: now)
      var pages: [Int] = []
      while let next = machine.next(now: now) { pages.append(next.page) }
      return pages
    }
    let others = Array(10..<20).filter { $0 != 12 }
    #expect(sent(to: 1, isWarm: true, at: 1_000_000_000) == [12] + others)
    machine.offer([10..<20], warm: [14..<16])
    #expect(sent(to: 2, isWarm: true, at: 3_000_000_000) == [12, 14, 15])
    #expect(sent(to: 3, isWarm: false, at: 5_000_000_000) == [12] + others)
    machine.offer([10..<20], warm: [])
    #expect(sent(to: 4, isWarm: true, at: 7_000_000_000) == [12])
  }
}
