import BenchSupport
import Foundation
import Glibc

/// The bytes of a round: of snowfork's checkpoints, QEMU's migration rounds and CRIU's pre-dumps, of guests with the same
/// memory and load, at the same interval.
///
/// Snowfork and QEMU are compared in short rounds, snowfork and CRIU in long ones, for CRIU needs seconds in an emulated
/// guest. The slower sets the interval for the other: snowfork that of the short ones, CRIU that of the long ones.
struct RoundsBench {
  let snowfork: Snowfork
  let recorder: Recorder
  let workspace: Workspace
  let imageDirectory: String
  let quick: Bool

  private static let size = GuestSize(ramMib: 512, inUseMib: 64)
  private static let (shortSeconds, longSeconds) = (0.25, 2.0)
  private var shortRounds: Int { quick ? 8 : 24 }
  private var longRounds: Int { quick ? 3 : 6 }
  private var image: GuestImage { get throws { try GuestImage(directory: imageDirectory) } }

  struct Samples {
    var bytes: [Double] = []
    var microseconds: [Double] = []

    var secondsMean: Double { microseconds.reduce(0, +) / Double(microseconds.count) / 1e6 }
  }

  func run() throws {
    for load in ReplicateBench.loads {
      say("rounds: \(load.name)")
      let short = try checkpoints(load, shortRounds, seconds: Self.shortSeconds)
      try record("snowfork", "\(load.name)_short", short)
      try record("qemu-rounds", "\(load.name)_short", try migration(load, seconds: short.secondsMean))
      let chain = try PreDumpChain.run(
        image, Self.size, load: load.command, rounds: longRounds, seconds: Self.longSeconds, in: workspace)
      let dumps = Samples(bytes: chain.map(\.bytes), microseconds: chain.map(\.microseconds))
      try record("criu-pre-dump", "\(load.name)_long", dumps)
      try record(
        "snowfork", "\(load.name)_long", try checkpoints(load, longRounds, seconds: dumps.secondsMean))
      for system in ["qemu-rounds", "criu-pre-dump"] { try ratio(load.name, to: system) }
    }
  }

  private func record(_ system: String, _ name: String, _ samples: Samples) throws {
    try recorder.record(system, "\(name)_round_bytes", Self.size, samples.bytes)
    try recorder.record(system, "\(name)_round_us", Self.size, samples.microseconds)
  }

  /// Snowfork's bytes by the peer's.
  private func ratio(_ load: String, to peer: String) throws {
    for name in ["\(load)_short", "\(load)_long"] {
      guard let own = recorder.median("snowfork", "\(name)_round_bytes", Self.size),
        let other = recorder.median(peer, "\(name)_round_bytes", Self.size)
      else { continue }
      try recorder.record("snowfork", "\(name)_to_\(peer)_ratio", Self.size, [own / other])
    }
  }

  private func checkpoints(_ load: ReplicateBench.Load, _ count: Int, seconds: Double) throws -> Samples {
    try snowfork.start("dev", Self.size, image: imageDirectory)
    _ = try snowfork.execute(on: "dev", load.command)
    try snowfork.replicate("dev", to: "h2", every: nil)
    let samples = try checkpoints(count, seconds: seconds)
    try snowfork.removeReplica("dev")
    try snowfork.destroy("dev")
    return samples
  }

  /// The first is not counted: what it sends was written in another time.
  private func checkpoints(_ count: Int, seconds: Double) throws -> Samples {
    var samples = Samples()
    for number in 0...count {
      let watch = Stopwatch()
      let checkpoint = try snowfork.checkpoint("dev")
      if number > 0 { samples.bytes.append(checkpoint.bytesSent) }
      let left = seconds * 1e6 - watch.microseconds
      if left > 0 { usleep(UInt32(left)) }
      // Written until the next one.
      if number < count { samples.microseconds.append(watch.microseconds) }
    }
    return samples
  }

  /// As many rounds as there are short checkpoints. Those before them are not counted: the first sends what was written
  /// while all of the RAM was sent, the second what was written meanwhile.
  private func migration(_ load: ReplicateBench.Load, seconds: Double) throws -> Samples {
    let migration = try MigrationRounds(image, Self.size, load: load.command, in: workspace)
    defer { migration.end() }
    var samples = Samples()
    for _ in 0..<2 { _ = try migration.round(seconds: seconds) }
    for number in 0...shortRounds {
      let watch = Stopwatch()
      let bytes = try migration.round(seconds: seconds)
      if number > 0 { samples.bytes.append(Double(bytes)) }
      if number < shortRounds { samples.microseconds.append(watch.microseconds) }
    }
    return samples
  }
}
