import BenchSupport
import Foundation
import Synchronization

/// What clones on other hosts that do the same ask for, and what is sent for it (SnowFlock, figures 4(b) and 4(c)).
struct LockstepBench {
  let snowfork: Snowfork
  let recorder: Recorder
  let hosts: Int
  let quick: Bool
  private static let transports = ["unicast", "multicast"]
  private static let workingSetMib = 256

  private var counts: [Int] { quick ? [1, 8] : [1, 2, 4, 8, 16, 32] }

  func run() throws {
    try start()
    try sameReading()
    try snowfork.destroy("dev")
    show()
  }

  private let size = GuestSize(ramMib: 1024, inUseMib: LockstepBench.workingSetMib)

  private func start() throws {
    try snowfork.start("dev", GuestSize(ramMib: size.ramMib, inUseMib: 0))
    _ = try snowfork.execute(on: "dev", ["sf-load", "store", "\(Self.workingSetMib)", "/data"])
  }

  /// Each clone reads the same 256 MiB, which were in its parent's memory at the fork.
  private func sameReading() throws {
    let right = try snowfork.execute(on: "dev", ["sf-load", "sum", "/data"])
    for transport in Self.transports {
      for clones in counts {
        // A parent that has not been forked has no recorded working set.
        try snowfork.destroy("dev")
        try start()
        let fork = try snowfork.fork(
          "dev", clones: clones, Snowfork.onOthers(hosts) + ["--transport", transport])
        let atFork = try snowfork.statistics(fork.ticket)
        let watch = Stopwatch()
        let snowfork = snowfork
        let sums = try Self.inAll(fork.clones.map(\.name)) {
          try snowfork.execute(on: $0, ["sf-load", "sum", "/data"])
        }
        let microseconds = watch.microseconds
        guard sums.allSatisfy({ $0 == right }) else {
          throw BenchError("a clone read other bytes than its parent has: \(Set(sums)) for \(right)")
        }
        let after = try snowfork.statistics(fork.ticket)
        try record(transport, "fork_us", clones, [fork.forkUs])
        try record(transport, "fork_requests", clones, [atFork.mcdist.requests])
        try record(transport, "fork_served", clones, [atFork.mcdist.served])
        try record(transport, "fork_suppressed", clones, [atFork.mcdist.lockstepSuppressed])
        try record(transport, "read_us", clones, [microseconds])
        try record(transport, "read_requests", clones, [after.mcdist.requests - atFork.mcdist.requests])
        try record(transport, "read_served", clones, [after.mcdist.served - atFork.mcdist.served])
        try record(
          transport, "read_suppressed", clones,
          [after.mcdist.lockstepSuppressed - atFork.mcdist.lockstepSuppressed])
        try record(transport, "read_sent_bytes", clones, [after.mcdist.bytesSent - atFork.mcdist.bytesSent])
        say("  \(transport), \(clones) clones: \(milliseconds(microseconds))")
        try snowfork.kill(fork.ticket)
      }
    }
  }

  /// At the same time in all of them.
  static func inAll(_ names: [String], _ body: @escaping @Sendable (String) throws -> String) throws
    -> [String]
  {
    let results = Mutex<[Result<String, any Error>]>([])
    let group = DispatchGroup()
    for name in names {
      group.enter()
      Thread.detachNewThread {
        let result = Result { try body(name) }
        results.withLock { $0.append(result) }
        group.leave()
      }
    }
    group.wait()
    return try results.withLock { try $0.map { try $0.get() } }
  }

  private func record(_ transport: String, _ figure: String, _ clones: Int, _ samples: [Double]) throws {
    try recorder.record(transport, figure, size, clones: clones, samples)
  }

  private func show() {
    say(
      "\nClones on \(hosts - 1) hosts that read the same \(Self.workingSetMib) MiB of their parent's memory:")
    say(
      "transport   clones   requests at fork   served   suppressed | reading      requests   served   suppressed   sent"
    )
    for transport in Self.transports {
      for clones in counts {
        func value(_ figure: String) -> Double {
          recorder.median(transport, figure, size, clones: clones) ?? .nan
        }
        say(
          String(
            format: "%-11s %6d %18.0f %8.0f %12.0f | %7.1f s %12.0f %8.0f %12.0f %6.0f MB",
            (transport as NSString).utf8String!, clones, value("fork_requests"), value("fork_served"),
            value("fork_suppressed"), value("read_us") / 1e6, value("read_requests"), value("read_served"),
            value("read_suppressed"), value("read_sent_bytes") / 1e6))
      }
    }
  }
}
