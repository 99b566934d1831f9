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
}
