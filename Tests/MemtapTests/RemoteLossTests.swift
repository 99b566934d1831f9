import Glibc
import Memtap
import Testing

/// Pages over a network that loses datagrams: each host is a network namespace, joined by a bridge.
@Suite(.serialized) struct RemoteLossTests {
  let pages = 4096

  @Test(arguments: [(0, PageTransport.auto), (20, .unicast), (20, .multicast), (20, .auto)])
  func pagesAreRightWhateverIsLost(percent: Int, transport: PageTransport) throws {
    let network = try TestNetwork(hosts: 3)
    let hosts = try HostsHarness(3, network: network)
    defer { hosts.close() }
    for host in 0..<3 { try network.lose(percent, at: host) }
    let parent = try hosts[0].guest("dev", pages: pages)
    try parent.write(0..<2500, tag: 1000)
    try parent.storm(seed: 8)
    let model = try hosts[0].freeze(parent, as: "s1")
    // One is brought all of it, the other what it touches and what the first one asks for.
    try hosts.spread("s1", of: parent, from: 0, to: [1], push: true, transport: transport)
    try hosts.spread("s1", of: parent, from: 0, to: [2], transport: transport)
    let clones = try (1...2).map { try hosts[$0].clone(of: "s1", "dev.\($0)", pages: pages) }
    for clone in clones { try clone.startTags(0..<pages) }
    for clone in clones { #expect(try clone.finishTags(0..<pages) == model) }
  }

  /// A host that is cut off for 10 s and comes back goes on.
  @Test func aHostIsCutOffAndComesBack() throws {
    let network = try TestNetwork(hosts: 2)
    let hosts = try HostsHarness(2, network: network)
    defer { hosts.close() }
    let events = EventLog(hosts[1].client)
    let parent = try hosts[0].guest("dev", pages: pages)
    try parent.write(0..<2500, tag: 1000)
    try parent.storm(seed: 9)
    let model = try hosts[0].freeze(parent, as: "s1")
    try hosts.spread("s1", of: parent, from: 0, to: [1])
    let clone = try hosts[1].clone(of: "s1", "dev.1", pages: pages)
    #expect(try clone.tags(0..<200) == Array(model[0..<200]))
    for host in 0..<2 { try network.lose(100, at: host) }
    try clone.startTags(0..<pages)
    usleep(10_000_000)
    for host in 0..<2 { try network.lose(0, at: host) }
    #expect(try clone.finishTags(0..<pages) == model)
    #expect(events.mustEnd.isEmpty && events.lost.isEmpty)
  }
}
