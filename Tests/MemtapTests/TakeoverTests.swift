import Glibc
import Memtap
import Testing

/// A pager that dies at any moment: VMs wait, its successor goes on, no page is ever wrong.
@Suite(.serialized) struct TakeoverTests {
  let pages = 4096

  @Test func aSuccessorServesWhatWaits() throws {
    let harness = try PagerHarness()
    defer { harness.close() }
    let parent = try harness.guest("dev", pages: pages)
    try parent.write(0..<3000, tag: 1000)
    try parent.storm(seed: 6)
    let model = try harness.freeze(parent, as: "s1")
    let clone = try harness.clone(of: "s1", "dev.1", pages: pages)
    #expect(try clone.tags(0..<100) == Array(model[0..<100]))
    harness.killPager()
    try clone.startTags(0..<pages)
    usleep(50_000)
    try harness.startPager()
    #expect(try clone.finishTags(0..<pages) == model)
    #expect(try harness.client.status().vms == ["dev", "dev.1"])
    let second = try harness.freeze(parent, as: "s2")
    let late = try harness.clone(of: "s1", "dev.2", pages: pages)
    let later = try harness.clone(of: "s2", "dev.3", pages: pages)
    #expect(try late.tags() == model)
    #expect(try later.tags() == second)
  }

  /// Faults that the dead pager had read and not served are asked for again.
  @Test func faultsThatWereReadAreNotLost() throws {
    let harness = try PagerHarness()
    defer { harness.close() }
    let parent = try harness.guest("dev", pages: pages)
    try parent.write(0..<3000, tag: 1000)
    let model = try harness.freeze(parent, as: "s1")
    let clone = try harness.clone(of: "s1", "dev.1", pages: pages)
    harness.killPager()
    for guest in [clone, parent] { try guest.swallowFaults() }
    try clone.startTags(0..<pages)
    try parent.startWrite(0..<pages, tag: 1 << 40)
    usleep(100_000)
    try harness.startPager()
    #expect(try clone.finishTags(0..<pages) == model)
    try parent.finishWrite()
    #expect(try parent.tags() == (0..<pages).map { 1 << 40 + UInt64($0) })
  }

  /// Killed again and again in the middle of the work of three generations.
  @Test(arguments: 1...4)
  func killedAtRandomMoments(seed: UInt64) throws {
    let harness = try PagerHarness()
    defer { harness.close() }
    var random = SeededGenerator(seed: seed)
    let parent = try harness.guest("g0", pages: pages)
    try parent.write(0..<3000, tag: 1000)
    try parent.storm(seed: seed)
    let first = try harness.freeze(parent, as: "s1")
    let child = try harness.clone(of: "s1", "g1", pages: pages)
    try child.storm(seed: seed + 100)
    let second = try harness.freeze(child, as: "s2")
    let readers = [
      (try harness.clone(of: "s1", "r1", pages: pages), first),
      (try harness.clone(of: "s2", "r2", pages: pages), second),
    ]
    for (reader, _) in readers { try reader.startTags(0..<pages) }
    for _ in 0..<8 {
      usleep(UInt32.random(in: 100..<6000, using: &random))
      harness.killPager()
      usleep(UInt32.random(in: 0..<2000, using: &random))
      try harness.startPager()
    }
    for (reader, model) in readers { #expect(try reader.finishTags(0..<pages) == model, "seed \(seed)") }
    let third = try harness.freeze(child, as: "s3")
    let late = try harness.clone(of: "s3", "r3", pages: pages)
    #expect(try late.tags() == third, "seed \(seed)")
    let latest = try harness.clone(of: "s1", "r4", pages: pages)
    #expect(try latest.tags() == first, "seed \(seed)")
  }

  /// Killed between the halves of a freeze: the fork fails, the VM runs on, and it can be forked again.
  @Test func anUncommittedArmIsTakenBack() throws {
    let harness = try PagerHarness()
    defer { harness.close() }
    let parent = try harness.guest("dev", pages: pages)
    try parent.write(0..<3000, tag: 1000)
    try parent.storm(seed: 7)
    let older = try harness.freeze(parent, as: "s0")
    try harness.client.arm(vm: "dev")
    harness.killPager()
    try harness.startPager()
    let error = #expect(throws: MemtapError.self) { _ = try harness.client.commit(vm: "dev", snapshot: "s1") }
    #expect(error?.code == .state)
    let model = try harness.freeze(parent, as: "s1")
    let clones = [
      try harness.clone(of: "s0", "a", pages: pages), try harness.clone(of: "s1", "b", pages: pages),
    ]
    #expect(try clones[0].tags() == older)
    #expect(try clones[1].tags() == model)
  }

  /// With the pager its hold on a dead parent's memory is gone: clones that are not whole are told to end.
  @Test func aParentThatDiesWithItsPager() throws {
    let harness = try PagerHarness()
    defer { harness.close() }
    let parent = try harness.guest("dev", pages: pages)
    try parent.write(0..<3000, tag: 1000)
    let model = try harness.freeze(parent, as: "whole")
    try harness.client.complete(snapshot: "whole")
    try parent.write(0..<100, tag: 5000)
    _ = try harness.freeze(parent, as: "partial")
    let whole = try harness.clone(of: "whole", "w", pages: pages)
    let partial = try harness.clone(of: "partial", "p", pages: pages)
    harness.killPager()
    harness.kill9(parent)
    try harness.startPager()
    let events = EventLog(harness.client)
    try harness.eventually("p must end") { events.mustEnd["p"] != nil }
    #expect(events.mustEnd["p"]?.hasPrefix("its origin dev has ended and") == true)
    #expect(try whole.tags() == model)
    _ = partial
  }

  /// Nothing of an earlier pager's dropped snapshots stays behind.
  @Test func droppedSnapshotsAreStillRemoved() throws {
    let harness = try PagerHarness()
    defer { harness.close() }
    let parent = try harness.guest("dev", pages: pages)
    try parent.write(0..<300, tag: 1000)
    let model = try harness.freeze(parent, as: "s1")
    let clone = try harness.clone(of: "s1", "dev.1", pages: pages)
    try harness.client.drop(snapshot: "s1")
    harness.killPager()
    try harness.startPager()
    #expect(try clone.tags() == model)
    #expect(harness.snapshotsOnDisk() == ["s1"])
    try harness.end(clone)
    try harness.eventually("s1 is gone") { harness.snapshotsOnDisk().isEmpty }
  }
}

/// The same numbers for the same seed.
struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64
  init(seed: UInt64) { state = seed }
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var value = state
    value = (value ^ value >> 30) &* 0xbf58_476d_1ce4_e5b9
    value = (value ^ value >> 27) &* 0x94d0_49bb_1331_11eb
    return value ^ value >> 31
  }
}
