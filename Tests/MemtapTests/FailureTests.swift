import Foundation
import Glibc
import LinuxSystem
import Memtap
import Synchronization
import Testing

/// What happens when a part dies or memory runs out: nobody ever sees a wrong page.
@Suite(.serialized) struct FailureTests {
  /// The RAM of a killed parent lives on in its file: its clones do not notice.
  @Test func clonesOutliveAKilledParent() throws {
    let harness = try PagerHarness()
    defer { harness.close() }
    let parent = try harness.guest("dev", pages: 4096)
    try parent.write(0..<3000, tag: 1000)
    try parent.storm(seed: 5)
    let model = try harness.freeze(parent, as: "s1")
    let clone = try harness.clone(of: "s1", "dev.1", pages: 4096)
    _ = try clone.tags(0..<100)
    harness.kill9(parent)
    #expect(try clone.tags() == model)
    try harness.client.forget(vm: "dev")
    let late = try harness.clone(of: "s1", "dev.2", pages: 4096)
    #expect(try late.tags() == model)
  }

  /// A clone's own pages die with it. Who was forked from it lives on if it has them all, and is ended if not.
  @Test func forksOfAKilledCloneEndUnlessTheyAreWhole() throws {
    let harness = try PagerHarness()
    defer { harness.close() }
    let events = EventLog(harness.client)
    let parent = try harness.guest("g0", pages: 4096)
    try parent.write(0..<3000, tag: 1000)
    _ = try harness.freeze(parent, as: "s1")
    let child = try harness.clone(of: "s1", "g1", pages: 4096)
    try child.write(0..<1000, tag: 2 << 32)
    let model = try harness.freeze(child, as: "whole")
    try harness.client.complete(snapshot: "whole")
    try child.write(0..<1000, tag: 3 << 32)
    _ = try harness.freeze(child, as: "partial")
    let whole = try harness.clone(of: "whole", "w", pages: 4096)
    let partial = try harness.clone(of: "partial", "p", pages: 4096)
    _ = try partial.tags(0..<16)
    #expect(try harness.client.isWhole(snapshot: "whole"))
    #expect(try !harness.client.isWhole(snapshot: "partial"))

    harness.kill9(child)
    try harness.eventually("p must end") { events.mustEnd["p"] != nil }
    let reason = try #require(events.mustEnd["p"])
    #expect(
      reason.hasPrefix("its origin g1 has ended and") && reason.hasSuffix("pages were not fetched"),
      "\(reason)")
    #expect(events.lost["partial"] == reason)
    #expect(events.gone.contains("g1"))
    #expect(events.mustEnd["w"] == nil)
    #expect(try whole.tags() == model)
    let refusal = #expect(throws: MemtapError.self) { try harness.clone(of: "partial", "q", pages: 4096) }
    #expect(refusal?.code == .state)
    // It waits for a page that is nowhere: it must not get another one.
    try partial.startTags(500..<501)
    usleep(100_000)
    #expect(try harness.client.statistics().snapshots.first { $0.snapshot == "partial" }?.lost == reason)
  }

  /// The tmpfs is full when a clone asks for a page: this clone has to end, the parent and a clone of zeros go on.
  @Test func noMemoryForAClonesPage() throws {
    let harness = try PagerHarness(bytesMax: 24 << 20)
    defer { harness.close() }
    let events = EventLog(harness.client)
    let parent = try harness.guest("dev", pages: 4096)
    try parent.write(0..<4096, tag: 1000)
    _ = try harness.freeze(parent, as: "s1")
    let clone = try harness.clone(of: "s1", "dev.1", pages: 4096)
    try clone.startTags(0..<4096)
    try harness.eventually("the clone must end") { events.mustEnd["dev.1"] != nil }
    #expect(events.mustEnd["dev.1"] == "no memory is left for the page cache of its snapshot")
    #expect(try parent.tags(0..<4096) == (0..<4096).map { 1000 + UInt64($0) })
  }

  /// The tmpfs is full when a parent writes: the parent goes on, the snapshot and its clones do not.
  @Test func noMemoryForAPreimage() throws {
    let harness = try PagerHarness(bytesMax: 24 << 20)
    defer { harness.close() }
    let events = EventLog(harness.client)
    let parent = try harness.guest("dev", pages: 4096)
    try parent.write(0..<4096, tag: 1000)
    _ = try harness.freeze(parent, as: "s1")
    let clone = try harness.clone(of: "s1", "dev.1", pages: 4096)
    #expect(try clone.tags(0..<64) == (0..<64).map { 1000 + UInt64($0) })
    try parent.write(0..<4096, tag: 1 << 32)
    #expect(try parent.tags() == (0..<4096).map { 1 << 32 + UInt64($0) })
    try harness.eventually("the clone must end") { events.mustEnd["dev.1"] != nil }
    #expect(events.lost["s1"] == "no memory is left for its pre-images")
    // What it has is right still.
    #expect(try clone.tags(0..<64) == (0..<64).map { 1000 + UInt64($0) })
    // With the memory given back the parent can be forked again.
    try harness.client.drop(snapshot: "s1")
    try harness.end(clone)
    try harness.eventually("s1 is gone") { harness.snapshotsOnDisk().isEmpty }
    try parent.zero(0..<2048)
    let model = try harness.freeze(parent, as: "s2")
    let late = try harness.clone(of: "s2", "dev.2", pages: 4096)
    #expect(try late.tags(0..<2560) == Array(model[0..<2560]))
  }

  /// The tmpfs is full already: the fork is refused, and nothing of it is left.
  @Test func noMemoryForASnapshot() throws {
    let harness = try PagerHarness(bytesMax: 17 << 20)
    defer { harness.close() }
    let parent = try harness.guest("dev", pages: 4096)
    try parent.write(0..<4096, tag: 1000)
    let filler = try MemoryFile.create("\(harness.paths.memory)/filler", bytes: 2 << 20)
    let buffer = try HeldBuffer(pages: 1)
    var offset: UInt64 = 0
    while try filler.write(at: offset, from: buffer.start, count: 4096) == 4096 { offset += 4096 }
    let error = #expect(throws: MemtapError.self) { try harness.client.arm(vm: "dev") }
    #expect(error?.code == .outOfMemory)
    #expect(try namesIn(harness.paths.staged).isEmpty)
    try parent.write(0..<4096, tag: 2000)
    unlink("\(harness.paths.memory)/filler")
    withExtendedLifetime(filler) {}
  }

  private func namesIn(_ directory: String) throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: directory)
  }

  @Test func callsThatDoNotFitAreRefused() throws {
    let harness = try PagerHarness()
    defer { harness.close() }
    func code(_ body: () throws -> Void) -> MemtapError.Code? {
      do {
        try body()
        return nil
      } catch { return (error as? MemtapError)?.code }
    }
    let client = harness.client
    #expect(code { try client.arm(vm: "nobody") } == .notFound)
    #expect(code { try client.activate(vm: "nobody", snapshot: "none") } == .notFound)
    #expect(
      code { try client.expect(vm: "../x", token: String(repeating: "a", count: 64), ramBytes: 4096) }
        == .failed)
    #expect(code { try client.expect(vm: "x", token: "short", ramBytes: 4096) } == .failed)
    #expect(
      code { try client.expect(vm: "x", token: String(repeating: "a", count: 64), ramBytes: 4097) } == .failed
    )
    #expect(code { try client.forget(vm: "nobody") } == nil)
    #expect(code { try client.drop(snapshot: "none") } == nil)
    try client.expect(vm: "late", token: String(repeating: "b", count: 64), ramBytes: 4096)
    #expect(code { try client.arm(vm: "late") } == .state)
    #expect(code { try client.waitForShim(vm: "late", timeoutMilliseconds: 20) } == .state)

    let parent = try harness.guest("dev", pages: 1024)
    let small = try harness.guest("small", pages: 512)
    try parent.write(0..<10, tag: 1)
    _ = try harness.freeze(parent, as: "s1")
    _ = small
    #expect(code { try client.activate(vm: "small", snapshot: "s1") } == .state)
    #expect(code { try client.activate(vm: "dev", snapshot: "s1") } == .state)
    #expect(code { _ = try client.commit(vm: "dev", snapshot: "s2") } == .state)
    #expect(code { _ = try client.commit(vm: "dev", snapshot: "s1") } == nil)  // said again: the same answer
    try client.rename(vm: "small", to: "tiny")
    try client.rename(vm: "small", to: "tiny")
    #expect(try client.status().vms == ["dev", "late", "tiny"])
    #expect(code { try client.rename(vm: "tiny", to: "dev") } == .state)
  }

  /// Who has not the token, or speaks nonsense, is cut off; who has it a second time too.
  @Test func strangersAtTheShimsDoorAreCutOff() throws {
    let harness = try PagerHarness()
    defer { harness.close() }
    for length in [1, 100, 160, 4000] {
      let socket = try UnixSocket.connect(path: harness.paths.shimSocket)
      let noise = (0..<length).map { _ in UInt8.random(in: 0...255) }
      try noise.withUnsafeBytes { try UnixSocket.send(socket, $0) }
      var byte: UInt8 = 0
      #expect(recv(socket.raw, &byte, 1, 0) <= 0)
    }
    // Nor does it help to occupy the door.
    let idle = try (0..<300).map { _ in try UnixSocket.connect(path: harness.paths.shimSocket) }
    defer { withExtendedLifetime(idle) {} }
    let door = try UnixSocket.connect(path: harness.paths.controlSocket)
    let noise: [UInt8] = Array(repeating: 0xff, count: 64)
    try noise.withUnsafeBytes { try UnixSocket.send(door, $0) }
    var byte: UInt8 = 0
    #expect(recv(door.raw, &byte, 1, 0) <= 0)
    let parent = try harness.guest("dev", pages: 1024)
    try parent.write(0..<10, tag: 1)
    #expect(try harness.freeze(parent, as: "s1").count == 1024)
  }
}

/// Collects what the pager tells unasked.
final class EventLog: Sendable {
  private struct Seen {
    var mustEnd: [String: String] = [:]
    var lost: [String: String] = [:]
    var gone: Set<String> = []
    var whole: Set<String> = []
  }
  private let seen = Mutex(Seen())
  var mustEnd: [String: String] { seen.withLock { $0.mustEnd } }
  var lost: [String: String] { seen.withLock { $0.lost } }
  var gone: Set<String> { seen.withLock { $0.gone } }
  var whole: Set<String> { seen.withLock { $0.whole } }

  init(_ client: MemtapClient) {
    let events = client.events
    Task { [weak self] in
      for await event in events { self?.note(event) }
    }
  }

  private func note(_ event: MemtapEvent) {
    seen.withLock {
      switch event {
      case let .mustEnd(vm, reason): $0.mustEnd[vm] = reason
      case let .snapshotLost(snapshot, reason): $0.lost[snapshot] = reason
      case let .vmGone(vm): $0.gone.insert(vm)
      case let .whole(snapshot): $0.whole.insert(snapshot)
      }
    }
  }
}
