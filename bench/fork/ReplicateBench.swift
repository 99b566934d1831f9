import BenchSupport
import Foundation

/// What a standby on another host costs: the pause of a checkpoint, its bytes, and how many go a second.
struct ReplicateBench {
  let snowfork: Snowfork
  let recorder: Recorder
  let quick: Bool

  /// What a program in the guest does with 64 MiB of random bytes: to 4,883 random pages a second, which are 20 MB, ...
  struct Load {
    var name: String
    /// ... it writes so many random words of 8 bytes each. A page has 512.
    var wordsOfPage: Int

    var command: [String] { ["sf-load", "scatter", "64", "4883", "\(wordsOfPage)"] }
  }
  static let loads = [Load(name: "writing", wordsOfPage: 8), Load(name: "renewing", wordsOfPage: 512)]

  private var sizes: [GuestSize] {
    [256, 1024, 4096].prefix(quick ? 2 : 3).map { GuestSize(ramMib: $0, inUseMib: 0) }
  }

  func run() throws {
    for size in sizes {
      say("replicate: \(size.name)")
      try snowfork.start("dev", size)
      let watch = Stopwatch()
      try snowfork.replicate("dev", to: "h2", every: nil)
      try recorder.record("snowfork", "first_us", size, [watch.microseconds])
      try measure("idle", size)
      for load in Self.loads {
        _ = try snowfork.execute(on: "dev", load.command)
        // The memory that it fills at its begin.
        _ = try snowfork.checkpoint("dev")
        try measure(load.name, size)
        _ = try snowfork.execute(on: "dev", ["killall", "sf-load"])
      }
      try snowfork.removeReplica("dev")
      try snowfork.destroy("dev")
    }
  }

  private func measure(_ load: String, _ size: GuestSize) throws {
    try single(load, size)
    try rate(load, size)
  }

  private func single(_ load: String, _ size: GuestSize) throws {
    let checkpoints = try (0..<(quick ? 5 : 20)).map { _ in try snowfork.checkpoint("dev") }
    try recorder.record("snowfork", "\(load)_pause_us", size, checkpoints.map(\.pauseUs))
    try recorder.record("snowfork", "\(load)_total_us", size, checkpoints.map(\.totalUs))
    try recorder.record("snowfork", "\(load)_sent_bytes", size, checkpoints.map(\.bytesSent))
    // What pages that differ are as they stand in memory: what a way without changes and compression sends.
    try recorder.record("snowfork", "\(load)_dirty_bytes", size, checkpoints.map { $0.dirtyPages * 4096 })
  }

  private func rate(_ load: String, _ size: GuestSize) throws {
    try snowfork.replicate("dev", to: "h2", every: 0.02)
    var rates: [Double] = []
    for _ in 0..<(quick ? 1 : 3) {
      let before = try snowfork.standbySequence("dev")
      let watch = Stopwatch()
      Thread.sleep(forTimeInterval: 4)
      let after = try snowfork.standbySequence("dev")
      rates.append((after - before) / watch.microseconds * 1e6)
    }
    try recorder.record("snowfork", "\(load)_checkpoints_per_s", size, rates)
    try snowfork.replicate("dev", to: "h2", every: nil)
  }
}

extension Snowfork {
  struct Checkpoint: Decodable {
    var sequence: Double
    var pauseUs: Double
    var dirtyPages: Double
    var bytesSent: Double
    var totalUs: Double
  }

  func checkpoint(_ name: String) throws -> Checkpoint {
    try decode(Checkpoint.self, try call(["checkpoint", name, "--json"]))
  }

  /// `every`: seconds; nil: only when one is asked for.
  func replicate(_ name: String, to host: String, every: Double?) throws {
    _ = try call(["replicate", name, "--to", host] + (every.map { ["--every", "\($0)"] } ?? []))
  }

  func removeReplica(_ name: String) throws { _ = try call(["replica", "rm", name]) }

  /// Of the last checkpoint that the standby has.
  func standbySequence(_ name: String) throws -> Double {
    struct List: Decodable {
      struct Replica: Decodable {
        var name: String
        var role: String
        var sequence: Double
      }
      var replicas: [Replica]
    }
    let replicas = try decode(List.self, try call(["replica", "ls", "--json"])).replicas
    guard let standby = replicas.first(where: { $0.name == name && $0.role == "standby" }) else {
      throw BenchError("\(name) has no standby")
    }
    return standby.sequence
  }
}
