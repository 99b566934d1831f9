import Foundation
import Glibc
import LinuxSystem
import Memtap
import Synchronization
import Testing

/// The pager dies again and again, at moments that nobody chose, in the middle of calls too: forks that fail are made
/// again, and whatever was forked is right.
@Suite(.serialized) struct ChaosTests {
  private static let pages = 2048

  @Test(arguments: 0..<3) func forksWhileThePagerKeepsDying(run: Int) throws {
    let seed = UInt64.random(in: 0 ..< .max)
    let harness = try PagerHarness()
    defer { harness.close() }
    let killer = PagerKiller(harness, seed: seed)
    defer { killer.stop() }
    let root = try harness.guest("g0", pages: Self.pages)
    try root.write(0..<1500, tag: 1000)
    try root.storm(seed: seed)
    killer.start()
    var parent = root
    for generation in 1...3 {
      for fork in 0..<4 {
        let id = "s\(generation)-\(fork)"
        let model = try freeze(parent, as: id, harness)
        let clone = try harness.guest("c\(id)", pages: Self.pages)
        try harness.persistently { try harness.client.activate(vm: clone.name, snapshot: id) }
        let wrong = try clone.tags().enumerated().filter { $1 != model[$0] }
        #expect(wrong.count == 0, "seed \(seed) \(id): \(wrong.prefix(5))")
        try harness.persistently { try harness.client.drop(snapshot: id) }
        if fork == 3 {
          try clone.storm(seed: seed + UInt64(generation))
          parent = clone
        } else {
          clone.end()
          try harness.persistently { try harness.client.forget(vm: clone.name) }
        }
      }
    }
    killer.stop()
    #expect(killer.count > 5, "the pager died \(killer.count) times only")
  }

  /// As the daemon does it: a fork whose pager died between the halves has failed, and is made again.
  private func freeze(_ guest: TestGuest, as id: String, _ harness: PagerHarness) throws -> [UInt64] {
    while true {
      try harness.persistently { try harness.client.arm(vm: guest.name) }
      try guest.pause()
      defer { try? guest.resume() }
      do {
        _ = try harness.persistently { try harness.client.commit(vm: guest.name, snapshot: id) }
        return try guest.tags()
      } catch let error as MemtapError where error.code == .state {
        continue
      }
    }
  }
}

/// A thread that kills the pager and starts the next one.
private final class PagerKiller: @unchecked Sendable {
  private let harness: PagerHarness
  private var random: SeededGenerator
  private let state = Mutex((isOver: false, count: 0))
  private var thread: NamedThread?
  var count: Int { state.withLock { $0.count } }

  init(_ harness: PagerHarness, seed: UInt64) {
    self.harness = harness
    random = SeededGenerator(seed: seed)
  }

  func start() {
    thread = try? NamedThread("pager-killer") { [self] in
      while !state.withLock({ $0.isOver }) {
        usleep(UInt32.random(in: 1000..<60_000, using: &random))
        harness.killPager()
        try? harness.startPager()
        state.withLock { $0.count += 1 }
      }
    }
  }

  /// On return a pager runs.
  func stop() {
    state.withLock { $0.isOver = true }
    thread?.join()
    thread = nil
  }
}
