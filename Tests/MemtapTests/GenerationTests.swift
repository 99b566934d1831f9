import Memtap
import Testing

/// Several snapshots of one VM, and clones of clones.
@Suite(.serialized) struct GenerationTests {
  let pages = 4096

  @Test func aSecondForkWhileTheFirstOnesClonesRun() throws {
    let harness = try PagerHarness()
    defer { harness.close() }
    let parent = try harness.guest("dev", pages: pages)
    try parent.write(0..<3000, tag: 1000)
    try parent.storm(seed: 2)
    var models: [[UInt64]] = []
    var clones: [TestGuest] = []
    for generation in 0..<4 {
      models.append(try harness.freeze(parent, as: "s\(generation)"))
      clones.append(try harness.clone(of: "s\(generation)", "dev.\(generation)", pages: pages))
      // A part is read now, the rest after the later forks.
      let part = generation * 512..<generation * 512 + 512
      #expect(try clones[generation].tags(part) == Array(models[generation][part]))
    }
    for generation in 0..<4 {
      #expect(try clones[generation].tags() == models[generation], "generation \(generation)")
    }
  }

  /// s1 of dev, s2 of its clone, s3 of that one's clone, s4 of that one's: all of them write all the time.
  @Test func clonesOfClonesOfClones() throws {
    let harness = try PagerHarness()
    defer { harness.close() }
    let parent = try harness.guest("g0", pages: pages)
    try parent.write(0..<2500, tag: 1000)
    var line = [parent]
    var models: [[UInt64]] = []
    for generation in 1...4 {
      try line.last!.storm(seed: UInt64(generation))
      models.append(try harness.freeze(line.last!, as: "s\(generation)"))
      line.append(try harness.clone(of: "s\(generation)", "g\(generation)", pages: pages))
      // It has pages of its own, reads some, and knows nothing of others when it is forked in turn.
      try line.last!.write(generation * 300..<generation * 300 + 200, tag: UInt64(generation) << 40)
      try line.last!.zero(generation * 300 + 50..<generation * 300 + 60)
      _ = try line.last!.tags(generation * 400..<generation * 400 + 300)
    }
    for generation in 1...4 {
      let late = try harness.clone(of: "s\(generation)", "late\(generation)", pages: pages)
      #expect(try late.tags() == models[generation - 1], "generation \(generation)")
    }
    // Every page of a clone that did not write is the fork point's; the deepest wrote nothing but its 200 pages.
    var expected = models[3]
    for page in 1200..<1400 { expected[page] = 4 << 40 + UInt64(page) }
    for page in 1250..<1260 { expected[page] = 0 }
    #expect(try line[4].tags() == expected)
  }

  @Test func aCloneIsForkedTwice() throws {
    let harness = try PagerHarness()
    defer { harness.close() }
    let parent = try harness.guest("g0", pages: pages)
    try parent.write(0..<2500, tag: 1000)
    _ = try harness.freeze(parent, as: "s1")
    let child = try harness.clone(of: "s1", "g1", pages: pages)
    try child.storm(seed: 9)
    var models: [[UInt64]] = []
    for fork in 0..<3 { models.append(try harness.freeze(child, as: "c\(fork)")) }
    try parent.write(0..<pages, tag: 5 << 32)
    for fork in 0..<3 {
      let clone = try harness.clone(of: "c\(fork)", "h\(fork)", pages: pages)
      #expect(try clone.tags() == models[fork], "fork \(fork)")
    }
  }

  /// Three snapshots of one parent, dropped in every order: those that remain stay right, and nothing is left at last.
  @Test(arguments: [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]])
  func snapshotsAreDroppedInAnyOrder(order: [Int]) throws {
    let harness = try PagerHarness()
    defer { harness.close() }
    let parent = try harness.guest("dev", pages: 1024)
    try parent.write(0..<800, tag: 1000)
    try parent.storm(seed: 3)
    var models: [[UInt64]] = []
    var clones: [TestGuest] = []
    for number in 0..<3 {
      models.append(try harness.freeze(parent, as: "s\(number)"))
      clones.append(try harness.clone(of: "s\(number)", "dev.\(number)", pages: 1024))
    }
    var left = Set(0..<3)
    for number in order {
      // The clone lives a little longer than the snapshot's name.
      try harness.client.drop(snapshot: "s\(number)")
      #expect(try clones[number].tags(0..<256) == Array(models[number][0..<256]))
      try harness.end(clones[number])
      left.remove(number)
      for other in left {
        let part = 256 * (4 - left.count)..<256 * (5 - left.count)
        #expect(try clones[other].tags(part) == Array(models[other][part]), "\(other) after \(number)")
      }
    }
    try harness.eventually("every snapshot is gone") { harness.snapshotsOnDisk().isEmpty }
    #expect(try harness.client.status().snapshots.isEmpty)
    // Unprotected again: it can be forked anew.
    let model = try harness.freeze(parent, as: "again")
    let clone = try harness.clone(of: "again", "dev.again", pages: 1024)
    #expect(try clone.tags() == model)
  }

  @Test func aSnapshotLivesAsLongAsTheForksOfItsClones() throws {
    let harness = try PagerHarness()
    defer { harness.close() }
    let parent = try harness.guest("g0", pages: 1024)
    try parent.write(0..<800, tag: 1000)
    let model = try harness.freeze(parent, as: "s1")
    let child = try harness.clone(of: "s1", "g1", pages: 1024)
    _ = try child.tags(0..<10)
    _ = try harness.freeze(child, as: "s2")
    try harness.client.drop(snapshot: "s1")
    try harness.client.complete(snapshot: "s2")
    #expect(try harness.client.isWhole(snapshot: "s2"))
    try harness.end(child)
    #expect(harness.snapshotsOnDisk() == ["s1", "s2"])
    let grandchild = try harness.clone(of: "s2", "g2", pages: 1024)
    #expect(try grandchild.tags() == model)
    try harness.client.drop(snapshot: "s2")
    try harness.end(grandchild)
    try harness.eventually("both are gone") { harness.snapshotsOnDisk().isEmpty }
  }

  @Test func anArmIsTakenBack() throws {
    let harness = try PagerHarness()
    defer { harness.close() }
    let parent = try harness.guest("dev", pages: 1024)
    try parent.write(0..<800, tag: 1000)
    try parent.storm(seed: 4)
    for _ in 0..<3 {
      try harness.client.arm(vm: "dev")
      try harness.client.arm(vm: "dev")
      try harness.client.disarm(vm: "dev")
      try harness.client.disarm(vm: "dev")
    }
    #expect(throws: MemtapError.self) { _ = try harness.client.commit(vm: "dev", snapshot: "s1") }
    let model = try harness.freeze(parent, as: "s1")
    try harness.client.arm(vm: "dev")
    try harness.client.disarm(vm: "dev")
    let clone = try harness.clone(of: "s1", "dev.1", pages: 1024)
    #expect(try clone.tags() == model)
  }
}
