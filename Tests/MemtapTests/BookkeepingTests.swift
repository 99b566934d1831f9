import Foundation
import GuestMemory
import LinuxSystem
import Memtap
import Testing

@Suite struct LatencyHistogramTests {
  @Test func percentilesAreWithinABucket() {
    var histogram = LatencyHistogram()
    defer { histogram.deallocate() }
    #expect(histogram.summary.p50 == 0 && histogram.summary.max == 0)
    for microseconds in 1...1000 { histogram.record(nanoseconds: UInt64(microseconds) * 1000) }
    let summary = histogram.summary
    #expect((500...650).contains(summary.p50), "\(summary.p50)")
    #expect((990...1000).contains(summary.p99), "\(summary.p99)")
    #expect(summary.max == 1000)
  }

  @Test func extremesHaveABucketToo() {
    var histogram = LatencyHistogram()
    defer { histogram.deallocate() }
    histogram.record(nanoseconds: 0)
    histogram.record(nanoseconds: .max)
    #expect(histogram.summary.p50 <= 1)
    #expect(histogram.summary.max == UInt64.max / 1000 + 1)
  }
}

@Suite struct PageStatesTests {
  private func withStates(_ pages: Int, _ body: (PageStates, String) throws -> Void) throws {
    let path = "/dev/shm/sft-states-\(UInt64.random(in: 0 ..< .max))"
    defer { unlink(path) }
    try body(try PageStates(creating: path, pageCount: pages, initial: .zero), path)
  }

  @Test func runsAreThoseOfAPlainWalk() throws {
    let seed = UInt64.random(in: 0 ..< .max)
    var random = SeededGenerator(seed: seed)
    for _ in 0..<50 {
      let pages = Int.random(in: 1...300, using: &random)
      try withStates(pages) { states, _ in
        for _ in 0..<Int.random(in: 0...20, using: &random) {
          let first = Int.random(in: 0..<pages, using: &random)
          states.fill(
            first..<Int.random(in: first...pages, using: &random),
            PageState(rawValue: UInt8.random(in: 0...3, using: &random))!)
        }
        let mask = UInt8.random(in: 1...15, using: &random)
        var found: [Int] = []
        states.forEachRun(matching: mask) { found += Array($0) }
        #expect(found == (0..<pages).filter { mask >> states[$0].rawValue & 1 == 1 }, "seed \(seed)")
        for state in [PageState.atOrigin, .present, .zero, .atBase] {
          #expect(states.count(state) == (0..<pages).filter { states[$0] == state }.count)
          #expect(states.contains(state) == (states.count(state) > 0))
        }
      }
    }
  }

  @Test func whatWasStoredIsThereForASuccessor() throws {
    try withStates(100) { states, path in
      states[7] = .present
      states.isDropped = true
      states.lostReason = String(repeating: "ä", count: 200)
      let again = try PageStates(opening: path, pageCount: 100)
      #expect(again[7] == .present && again[8] == .zero)
      #expect(again.isDropped && again.isLost)
      #expect(again.lostReason?.hasPrefix("ää") == true)
      #expect(throws: SystemError.self) { _ = try PageStates(opening: path, pageCount: 101) }
    }
  }

  @Test func aFileOfNonsenseIsRefused() throws {
    try withStates(100) { _, path in
      let file = try MemoryFile.open(path)
      var byte: UInt8 = 9
      _ = try file.write(at: 50, from: &byte, count: 1)
      #expect(throws: SystemError.self) { _ = try PageStates(opening: path, pageCount: 100) }
    }
  }

  /// However long it goes on: at most 512 samples, from the first to the last, evenly far apart.
  @Test(arguments: [1, 511, 512, 513, 5000, 100_000])
  func historiesCoverAllOfATime(count: Int) {
    var history = ArrivalHistory(since: 0)
    var added = 0
    for now in (0..<UInt64(count)).map({ $0 * 50_000_000 }) where history.isDue(at: now) {
      history.add(.init(microseconds: now / 1000, pagesPresent: 0, bytesReceived: 0, faults: 0), at: now)
      added += 1
    }
    let times = history.samples.map(\.microseconds)
    #expect(times.count == (count <= 512 ? count : times.count) && times.count <= 512 && added <= count)
    #expect(times == times.sorted())
    let end = UInt64(count) * 50_000
    #expect(times.first! <= end / 128 && times.last! + end / 128 + 50_000 >= end)
    #expect(count < 256 || times.count >= 256)
  }
}
