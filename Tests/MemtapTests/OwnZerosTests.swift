import Memtap
import Testing

/// Long runs of zeros are memory of the clone's own, in huge pages where 4 MiB lie together: no faults of it are reported,
/// and no fork misses what was written there.
@Suite(.serialized) struct OwnZerosTests {
  let pages = 8192

  private func counters(_ harness: PagerHarness, of vm: String) throws -> MemtapStatistics.VMCounters {
    try #require(try harness.client.statistics().vms.first { $0.vm == vm })
  }

  @Test func writesThereReachNoPagerAndAreCountedAsAvoided() throws {
    let harness = try PagerHarness()
    defer { harness.close() }
    let parent = try harness.guest("dev", pages: pages)
    try parent.write(0..<1000, tag: 1000)
    var model = try harness.freeze(parent, as: "s1")
    let clone = try harness.clone(of: "s1", "dev.1", pages: pages)
    try clone.write(2000..<8000, tag: 1 << 32)
    for page in 2000..<8000 { model[page] = 1 << 32 + UInt64(page) }
    let seen = try counters(harness, of: "dev.1")
    #expect(seen.faults == 0 && seen.pagesZero >= 6000)
    #expect(try clone.tags() == model)
  }

  /// A page beside such a run turns out to be zeros only when it is fetched.
  @Test func zerosBesideThem() throws {
    let harness = try PagerHarness()
    defer { harness.close() }
    let parent = try harness.guest("dev", pages: pages)
    try parent.write(0..<1000, tag: 1000)
    try parent.zero(990..<1000)
    let model = try harness.freeze(parent, as: "s1")
    let clone = try harness.clone(of: "s1", "dev.1", pages: pages)
    #expect(try clone.tags(999..<1000) == [0])
    #expect(try clone.tags() == model)
  }

  /// Written before it arms, while it is armed, after the commit; some of it only in part of a huge page.
  @Test func aCloneIsForkedWhileItTakesThem() throws {
    let harness = try PagerHarness()
    defer { harness.close() }
    let parent = try harness.guest("g0", pages: pages)
    try parent.write(0..<1000, tag: 1000)
    var model = try harness.freeze(parent, as: "s1")
    let clone = try harness.clone(of: "s1", "g1", pages: pages)
    var models: [[UInt64]] = []
    func write(_ range: Range<Int>, _ tag: UInt64) throws {
      try clone.write(range, tag: tag << 32)
      for page in range { model[page] = tag << 32 + UInt64(page) }
    }
    for fork in 0..<3 {
      let first = 1100 + fork * 2300
      try write(first..<first + 700, UInt64(fork * 4 + 1))
      try harness.client.arm(vm: "g1")
      try write(first + 500..<first + 1500, UInt64(fork * 4 + 2))
      #expect(try clone.tags(first + 1500..<first + 1600).allSatisfy { $0 == 0 })
      try harness.client.commit(vm: "g1", snapshot: "c\(fork)")
      models.append(model)
      try write(first + 300..<first + 2000, UInt64(fork * 4 + 3))
    }
    for fork in 0..<3 {
      let grandchild = try harness.clone(of: "c\(fork)", "h\(fork)", pages: pages)
      #expect(try grandchild.tags() == models[fork], "fork \(fork)")
    }
    #expect(try clone.tags() == model)
  }
}
