import Memtap
import Testing

/// Forks of a parent, through a real pager, userfaultfd and RAM shim.
@Suite(.serialized) struct FirstForkTests {
  let pages = 4096  // 16 MiB

  @Test func clonesSeeTheForkPointWhileTheParentOverwrites() throws {
    let harness = try PagerHarness()
    defer { harness.close() }
    let parent = try harness.guest("dev", pages: pages)
    try parent.write(0..<3000, tag: 1000)
    try parent.zero(100..<200)
    try parent.storm(seed: 1)
    let model = try harness.freeze(parent, as: "s1")
    #expect(!model.contains(TestGuest.torn))

    let clones = try (1...8).map { try harness.clone(of: "s1", "dev.\($0)", pages: pages) }
    for clone in clones { #expect(try clone.tags() == model) }
    // What clones write is theirs alone.
    for (number, clone) in clones.enumerated() { try clone.write(0..<pages, tag: UInt64(number + 1) << 32) }
    for (number, clone) in clones.enumerated() {
      #expect(try clone.tags() == (0..<pages).map { UInt64(number + 1) << 32 + UInt64($0) })
    }
    let late = try harness.clone(of: "s1", "dev.9", pages: pages)
    #expect(try late.tags() == model)
    let counters = try harness.client.statistics()
    let snapshot = try #require(counters.snapshots.first)
    #expect(snapshot.vms.count == 9)
    #expect(snapshot.pagesPresent <= UInt64(pages))
    #expect(snapshot.faults > 0)
  }

  @Test func theNextForksCloneFindsWhatTheFirstOnesAskedFor() throws {
    let harness = try PagerHarness()
    defer { harness.close() }
    let parent = try harness.guest("dev", pages: pages)
    try parent.write(0..<pages, tag: 1)
    let working = [8..<16, 1024..<1040, 4088..<4096]
    func faults(_ snapshot: String) throws -> UInt64 {
      try #require(try harness.client.statistics().snapshots.first { $0.snapshot == snapshot }).pagesFetched
    }

    let first = try harness.freeze(parent, as: "s1")
    let early = try harness.clone(of: "s1", "dev.1", pages: pages)
    for range in working { #expect(try early.tags(range) == Array(first[range])) }
    #expect(try faults("s1") > 0)

    try parent.write(0..<pages, tag: 5000)
    let second = try harness.freeze(parent, as: "s2")
    let late = try harness.clone(of: "s2", "dev.2", pages: pages)
    try harness.eventually("the working set is there") {
      let counters = try harness.client.statistics().snapshots.first { $0.snapshot == "s2" }
      return (counters?.pagesPresent ?? 0) >= UInt64(working.reduce(0) { $0 + $1.count })
    }
    for range in working { #expect(try late.tags(range) == Array(second[range])) }
    #expect(try faults("s2") == 0)
  }
}
