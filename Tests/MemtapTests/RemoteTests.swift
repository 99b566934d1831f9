import Glibc
import Memtap
import Testing

/// Clones whose parent is on another host.
@Suite(.serialized) struct RemoteTests {
  let pages = 4096

  /// While the parent writes on, clones on two hosts read all of the fork point.
  @Test(arguments: [PageTransport.unicast, .multicast, .auto])
  func clonesOnOtherHostsSeeTheForkPoint(transport: PageTransport) throws {
    let hosts = try HostsHarness(3)
    defer { hosts.close() }
    let parent = try hosts[0].guest("dev", pages: pages)
    try parent.write(0..<3000, tag: 1000)
    try parent.zero(100..<200)
    try parent.storm(seed: 1)
    let model = try hosts[0].freeze(parent, as: "s1")
    try hosts.spread("s1", of: parent, from: 0, to: [1, 2], transport: transport)
    let clones = try (1...2).map { try hosts[$0].clone(of: "s1", "dev.\($0)", pages: pages) }
    for clone in clones { try clone.startTags(0..<pages) }
    for clone in clones { #expect(try clone.finishTags(0..<pages) == model) }
    // A second clone finds its host's cache filled; one beside the parent is as right as ever.
    let late = try hosts[1].clone(of: "s1", "dev.3", pages: pages)
    #expect(try late.tags() == model)
    let near = try hosts[0].clone(of: "s1", "dev.4", pages: pages)
    #expect(try near.tags() == model)

    let received = try hosts[1].counters(of: "s1")
    let distribution = try #require(received.distribution)
    #expect(received.origin == "dev" && received.vms.sorted() == ["dev.1", "dev.3"])
    #expect(received.pagesFetched > 0 && received.pagesFetched + received.pagesPrefetched >= 2900)
    #expect(distribution.bytesReceived > 0 && distribution.requests > 0)
    #expect(distribution.remoteFaultMicroseconds.p50 > 0)
    #expect(try #require(try hosts[0].counters(of: "s1").distribution).served >= 2900)
    let history = try hosts[1].client.history(snapshot: "s1")
    #expect(history.pages.count == pages)
    let (touched, ahead) = (history.pages.filter { $0 == 2 }.count, history.pages.filter { $0 == 3 }.count)
    #expect(touched > 0 && touched <= Int(received.pagesFetched))
    #expect(touched + ahead == Int(received.pagesPresent))
    #expect(history.pages.allSatisfy { [2, 3, 5].contains($0) })
    #expect(history.samples.last?.pagesPresent == received.pagesPresent)
    #expect(history.samples.map(\.microseconds) == history.samples.map(\.microseconds).sorted())
  }

  /// What is served is not stored: the clones of other hosts do not double the origin's memory.
  @Test func servingTakesNoMemory() throws {
    let hosts = try HostsHarness(2)
    defer { hosts.close() }
    let parent = try hosts[0].guest("dev", pages: pages)
    try parent.write(0..<3000, tag: 1000)
    let model = try hosts[0].freeze(parent, as: "s1")
    try hosts.spread("s1", of: parent, from: 0, to: [1])
    let clone = try hosts[1].clone(of: "s1", "dev.1", pages: pages)
    #expect(try clone.tags() == model)
    #expect(try hosts[0].counters(of: "s1").pagesPresent == 0)
  }

  /// A clone on another host writes, is forked there, and its fork's clones are on a third host and beside it.
  @Test func clonesOfClonesOnOtherHosts() throws {
    let hosts = try HostsHarness(3)
    defer { hosts.close() }
    let parent = try hosts[0].guest("g0", pages: pages)
    try parent.write(0..<3000, tag: 1000)
    try parent.storm(seed: 2)
    let first = try hosts[0].freeze(parent, as: "s1")
    try hosts.spread("s1", of: parent, from: 0, to: [1])
    let child = try hosts[1].clone(of: "s1", "g1", pages: pages)
    _ = try child.tags(0..<300)
    try child.write(200..<500, tag: 2 << 40)
    try child.zero(450..<460)
    var second = first
    for page in 200..<500 { second[page] = 2 << 40 + UInt64(page) }
    for page in 450..<460 { second[page] = 0 }
    try hosts[1].client.arm(vm: "g1")
    _ = try hosts[1].client.commit(vm: "g1", snapshot: "s2")
    try hosts.spread("s2", of: child, from: 1, to: [2])
    try child.write(0..<1000, tag: 3 << 40)
    let far = try hosts[2].clone(of: "s2", "g2", pages: pages)
    let near = try hosts[1].clone(of: "s2", "g3", pages: pages)
    try far.startTags(0..<pages)
    #expect(try near.tags() == second)
    #expect(try far.finishTags(0..<pages) == second)
    // And once more, on the third host.
    try far.write(0..<10, tag: 4 << 40)
    try hosts[2].client.arm(vm: "g2")
    _ = try hosts[2].client.commit(vm: "g2", snapshot: "s3")
    var third = second
    for page in 0..<10 { third[page] = 4 << 40 + UInt64(page) }
    let deep = try hosts[2].clone(of: "s3", "g4", pages: pages)
    #expect(try deep.tags() == third)
  }

  /// All is brought here unasked; then the origin may die, and new clones are right still.
  @Test func aPushedSnapshotOutlivesItsOrigin() throws {
    let hosts = try HostsHarness(2)
    defer { hosts.close() }
    let events = EventLog(hosts[1].client)
    let parent = try hosts[0].guest("dev", pages: pages)
    try parent.write(0..<3000, tag: 1000)
    try parent.storm(seed: 3)
    let model = try hosts[0].freeze(parent, as: "s1")
    try hosts.spread("s1", of: parent, from: 0, to: [1], push: true)
    let clone = try hosts[1].clone(of: "s1", "dev.1", pages: pages)
    _ = try clone.tags(0..<64)
    try hosts[1].eventually("s1 is whole", within: .seconds(20)) { events.whole.contains("s1") }
    #expect(try hosts[1].client.isWhole(snapshot: "s1"))
    #expect(try #require(try hosts[1].counters(of: "s1").distribution).pagesPushed > 0)
    hosts[0].kill9(parent)
    hosts[0].killPager()
    try hosts[1].client.originGone(snapshot: "s1", reason: "h0 is down")
    #expect(try clone.tags() == model)
    let late = try hosts[1].clone(of: "s1", "dev.2", pages: pages)
    #expect(try late.tags() == model)
    #expect(events.lost.isEmpty && events.mustEnd.isEmpty)
    // A successor knows that it needs nobody.
    hosts[1].killPager()
    try hosts[1].startPager()
    let later = try hosts[1].clone(of: "s1", "dev.3", pages: pages)
    #expect(try later.tags() == model)
  }

  /// The daemon has all of it brought here, also for a fork of a clone; faults are served meanwhile.
  @Test func completeBringsAll() throws {
    let hosts = try HostsHarness(2)
    defer { hosts.close() }
    let parent = try hosts[0].guest("g0", pages: pages)
    try parent.write(0..<3000, tag: 1000)
    let model = try hosts[0].freeze(parent, as: "s1")
    try hosts.spread("s1", of: parent, from: 0, to: [1])
    let child = try hosts[1].clone(of: "s1", "g1", pages: pages)
    try hosts[1].client.arm(vm: "g1")
    _ = try hosts[1].client.commit(vm: "g1", snapshot: "s2")
    #expect(try !hosts[1].client.isWhole(snapshot: "s2"))
    try child.startTags(0..<pages)
    try hosts[1].client.complete(snapshot: "s2")
    #expect(try hosts[1].client.isWhole(snapshot: "s2"))
    #expect(try child.finishTags(0..<pages) == model)
    hosts[0].kill9(parent)
    hosts[0].killPager()
    let clone = try hosts[1].clone(of: "s2", "g2", pages: pages)
    #expect(try clone.tags() == model)
  }

  /// Every call may be made again.
  @Test func callsMayBeRepeatedAndFitTheState() throws {
    let hosts = try HostsHarness(2)
    defer { hosts.close() }
    let parent = try hosts[0].guest("dev", pages: pages)
    try parent.write(0..<300, tag: 1000)
    let model = try hosts[0].freeze(parent, as: "s1")
    let origin = try hosts[0].client.serve(snapshot: "s1", address: "127.0.0.1", transport: .auto)
    #expect(try hosts[0].client.serve(snapshot: "s1", address: "127.0.0.1", transport: .auto) == origin)
    for _ in 0..<2 { try hosts.spread("s1", of: parent, from: 0, to: [1]) }
    for _ in 0..<2 { try hosts[1].client.push(snapshot: "s1", true) }
    for _ in 0..<2 { try hosts[1].client.push(snapshot: "s1", false) }
    #expect(throws: MemtapError.self) { try hosts[0].client.push(snapshot: "s1", true) }
    #expect(throws: MemtapError.self) {
      try hosts[0].client.serve(snapshot: "s0", address: "127.0.0.1", transport: .auto)
    }
    // An address that is not this host's.
    let second = try hosts[0].freeze(parent, as: "s2")
    #expect(second == model)
    #expect(throws: MemtapError.self) {
      try hosts[0].client.serve(snapshot: "s2", address: "192.0.2.1", transport: .auto)
    }
    var other = origin
    other.port ^= 1
    let layout = try hosts[0].client.survey(snapshot: "s1", kernel: nil)
    #expect(throws: MemtapError.self) {
      try hosts[1].client.attach(
        RemoteSnapshot(
          id: "s1", host: "h0", parent: "dev", ramBytes: layout.ramBytes, existing: layout.existing,
          origin: other, localAddress: "127.0.0.1", push: false))
    }
    let clone = try hosts[1].clone(of: "s1", "dev.1", pages: pages)
    #expect(try clone.tags() == model)
    // Nothing is left when nobody needs it.
    try hosts[1].client.drop(snapshot: "s1")
    #expect(try clone.tags(0..<10) == Array(model[0..<10]))
    try hosts[1].end(clone)
    try hosts[1].eventually("s1 is gone") { hosts[1].snapshotsOnDisk().isEmpty }
    try hosts[0].client.drop(snapshot: "s1")
    try hosts[0].client.drop(snapshot: "s2")
    try hosts[0].eventually("all is gone") { hosts[0].snapshotsOnDisk().isEmpty }
  }

  /// What a clone on one host touched goes to the next host as soon as that asks for anything, and to one that comes to
  /// the next snapshot.
  @Test func theWorkingSetGoesToLaterHosts() throws {
    let hosts = try HostsHarness(3)
    defer { hosts.close() }
    let parent = try hosts[0].guest("dev", pages: pages)
    try parent.write(0..<3000, tag: 1000)
    let model = try hosts[0].freeze(parent, as: "s1")
    try hosts.spread("s1", of: parent, from: 0, to: [1], transport: .unicast)
    let first = try hosts[1].clone(of: "s1", "dev.1", pages: pages)
    let touched = stride(from: 64, to: 2800, by: 64).map { $0 }
    for page in touched { #expect(try first.tags(page..<page + 1) == [model[page]]) }
    // The origin offers what is new ten times a second.
    usleep(150_000)
    #expect(try first.tags(2999..<3000) == [model[2999]])
    try hosts.spread("s1", of: parent, from: 0, to: [2], transport: .unicast)
    let second = try hosts[2].clone(of: "s1", "dev.2", pages: pages)
    #expect(try second.tags(0..<1) == [model[0]])
    try hosts[2].eventually("the working set has come") {
      let history = try hosts[2].client.history(snapshot: "s1").pages
      return touched.allSatisfy { history[$0] == 3 }
    }
    _ = try hosts[0].freeze(parent, as: "s2")
    try hosts.spread("s2", of: parent, from: 0, to: [2], transport: .unicast)
    let third = try hosts[2].clone(of: "s2", "dev.3", pages: pages)
    #expect(try third.tags(0..<1) == [model[0]])
    try hosts[2].eventually("the working set has come for s2") {
      let history = try hosts[2].client.history(snapshot: "s2").pages
      return touched.allSatisfy { history[$0] == 3 }
    }
  }

  /// How long a fault waits for a page of another host: told by the statistics, and no page is counted twice.
  @Test func remoteFaultsAreMeasured() throws {
    let network = try TestNetwork(hosts: 2)
    let hosts = try HostsHarness(2, network: network)
    defer { hosts.close() }
    let parent = try hosts[0].guest("dev", pages: pages)
    try parent.write(0..<pages, tag: 1000)
    let model = try hosts[0].freeze(parent, as: "s1")
    try hosts.spread("s1", of: parent, from: 0, to: [1])
    let clone = try hosts[1].clone(of: "s1", "dev.1", pages: pages)
    for page in stride(from: 0, to: pages, by: 16) {
      #expect(try clone.tags(page..<page + 1) == [model[page]])
    }
    let counters = try hosts[1].counters(of: "s1")
    let time = try #require(counters.distribution).remoteFaultMicroseconds
    #expect(counters.pagesFetched == 256 && counters.pagesPrefetched <= counters.pagesPresent - 256)
    #expect(time.p50 > 0 && time.p50 <= time.p99 && time.p99 <= time.max)
  }
}
