import Glibc
import Memtap
import Testing

/// Hosts and pagers die in mid-distribution: no page is ever wrong, and who can not go on is told why.
@Suite(.serialized) struct RemoteFailureTests {
  let pages = 4096

  /// A clone's own pages die with it, wherever its forks' clones are.
  @Test func theOriginEndsAndTheReasonComes() throws {
    let hosts = try HostsHarness(3)
    defer { hosts.close() }
    let events = EventLog(hosts[2].client)
    let parent = try hosts[0].guest("g0", pages: pages)
    try parent.write(0..<3000, tag: 1000)
    _ = try hosts[0].freeze(parent, as: "s1")
    try hosts.spread("s1", of: parent, from: 0, to: [1])
    let child = try hosts[1].clone(of: "s1", "g1", pages: pages)
    try child.write(0..<1000, tag: 2 << 40)
    try hosts[1].client.arm(vm: "g1")
    _ = try hosts[1].client.commit(vm: "g1", snapshot: "s2")
    try hosts.spread("s2", of: child, from: 1, to: [2])
    let clone = try hosts[2].clone(of: "s2", "g2", pages: pages)
    #expect(try clone.tags(0..<8) == (0..<8).map { 2 << 40 + UInt64($0) })
    hosts[1].kill9(child)
    try hosts[2].eventually("g2 must end") { events.mustEnd["g2"] != nil }
    let reason = try #require(events.mustEnd["g2"])
    #expect(
      reason.hasPrefix("its origin g1 on host h1 is gone: ")
        && reason.contains("its origin g1 has ended and"),
      "\(reason)")
    #expect(events.lost["s2"] == reason)
    // It waits for a page that is nowhere: it must not get another one.
    try clone.startTags(600..<601)
    #expect(throws: HarnessError.self) { try clone.finishTags(600..<601, within: 500) }
    let refusal = #expect(throws: MemtapError.self) { try hosts[2].clone(of: "s2", "g3", pages: pages) }
    #expect(refusal?.code == .state)
  }

  /// The daemon says that the origin's host is gone: everything that stands on it ends, also forks of its clones.
  @Test func theDaemonSaysThatTheHostIsGone() throws {
    let hosts = try HostsHarness(2)
    defer { hosts.close() }
    let events = EventLog(hosts[1].client)
    let parent = try hosts[0].guest("g0", pages: pages)
    try parent.write(0..<3000, tag: 1000)
    _ = try hosts[0].freeze(parent, as: "s1")
    try hosts.spread("s1", of: parent, from: 0, to: [1])
    let child = try hosts[1].clone(of: "s1", "g1", pages: pages)
    try hosts[1].client.arm(vm: "g1")
    _ = try hosts[1].client.commit(vm: "g1", snapshot: "s2")
    _ = try hosts[1].clone(of: "s2", "g2", pages: pages)
    hosts[0].killPager()
    try child.startTags(0..<pages)
    for _ in 0..<2 { try hosts[1].client.originGone(snapshot: "s1", reason: "h0 does not answer") }
    try hosts[1].eventually("both must end") { events.mustEnd["g1"] != nil && events.mustEnd["g2"] != nil }
    let reason = "its origin g0 on host h0 is gone: h0 does not answer"
    #expect(events.mustEnd["g1"] == reason && events.mustEnd["g2"] == reason)
    #expect(events.lost["s1"] == reason && events.lost["s2"] == reason)
    #expect(throws: HarnessError.self) { try child.finishTags(0..<pages, within: 500) }
    let error = #expect(throws: MemtapError.self) { try hosts[1].client.complete(snapshot: "s1") }
    #expect(error?.cause == reason)
  }

  /// Nobody says anything: after 15 s of silence the clones are ended all the same.
  @Test func aHostFallsSilent() throws {
    let hosts = try HostsHarness(2)
    defer { hosts.close() }
    let events = EventLog(hosts[1].client)
    let parent = try hosts[0].guest("g0", pages: pages)
    try parent.write(0..<3000, tag: 1000)
    _ = try hosts[0].freeze(parent, as: "s1")
    try hosts.spread("s1", of: parent, from: 0, to: [1])
    let clone = try hosts[1].clone(of: "s1", "g1", pages: pages)
    hosts[0].killPager()
    try clone.startTags(0..<pages)
    try hosts[1].eventually("g1 must end", within: .seconds(40)) { events.mustEnd["g1"] != nil }
    #expect(events.mustEnd["g1"]?.hasPrefix("its origin g0 on host h0 is gone: ") == true)
    #expect(throws: HarnessError.self) { try clone.finishTags(0..<pages, within: 100) }
  }

  /// Killed again and again, at either side: each successor serves and receives where the dead one did.
  @Test(arguments: 1...4)
  func pagersAreKilledOnEitherSide(seed: UInt64) throws {
    let hosts = try HostsHarness(3)
    defer { hosts.close() }
    var random = SeededGenerator(seed: seed)
    let parent = try hosts[0].guest("g0", pages: pages)
    try parent.write(0..<3000, tag: 1000)
    try parent.storm(seed: seed)
    let model = try hosts[0].freeze(parent, as: "s1")
    try hosts.spread("s1", of: parent, from: 0, to: [1, 2], push: seed % 2 == 0)
    let clones = try (1...2).map { try hosts[$0].clone(of: "s1", "g\($0)", pages: pages) }
    for clone in clones { try clone.startTags(0..<pages) }
    for _ in 0..<6 {
      let victim = hosts[Int.random(in: 0..<3, using: &random)]
      usleep(UInt32.random(in: 100..<20_000, using: &random))
      victim.killPager()
      usleep(UInt32.random(in: 0..<5000, using: &random))
      try victim.startPager()
    }
    for clone in clones { #expect(try clone.finishTags(0..<pages) == model, "seed \(seed)") }
    let late = try hosts[2].clone(of: "s1", "late", pages: pages)
    #expect(try late.tags() == model, "seed \(seed)")
  }

  /// No memory for the page that a fault waits for: that clone must end; it sees no zeros.
  @Test func noMemoryAtTheReceiver() throws {
    let hosts = try HostsHarness(2, bytesMax: [1 << 30, 6 << 20])
    defer { hosts.close() }
    let events = EventLog(hosts[1].client)
    let parent = try hosts[0].guest("g0", pages: pages)
    try parent.write(0..<3000, tag: 1000)
    let model = try hosts[0].freeze(parent, as: "s1")
    try hosts.spread("s1", of: parent, from: 0, to: [1])
    let clone = try hosts[1].clone(of: "s1", "g1", pages: pages)
    let second = try hosts[1].clone(of: "s1", "g2", pages: pages)
    #expect(try clone.tags(0..<500) == Array(model[0..<500]))
    try clone.startTags(500..<pages)
    try hosts[1].eventually("g1 must end", within: .seconds(20)) { events.mustEnd["g1"] != nil }
    #expect(events.mustEnd["g1"] == "no memory is left for the page cache of its snapshot")
    #expect(throws: HarnessError.self) { try clone.finishTags(500..<pages, within: 300) }
    #expect(events.lost.isEmpty)
    for _ in 0..<2 {
      let error = #expect(throws: MemtapError.self) { try hosts[1].client.complete(snapshot: "s1") }
      #expect(error?.code == .outOfMemory)
    }
    // The next one to need such a page is told as well, and does not wait for ever.
    #expect(try second.tags(0..<500) == Array(model[0..<500]))
    try second.startTags(2900..<3000)
    try hosts[1].eventually("g2 must end", within: .seconds(20)) { events.mustEnd["g2"] != nil }
  }
}
