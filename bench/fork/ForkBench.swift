import BenchSupport
import Foundation

/// The forks themselves: for each size and number of clones the pause, the time to the last clone, and the phases.
struct ForkBench {
  let snowfork: Snowfork
  let recorder: Recorder
  let quick: Bool

  func run() throws {
    try measure(.small, clones: quick ? [1, 8] : [1, 4, 8, 16, 32], repetitions: quick ? 2 : 7)
    try measure(.medium, clones: [1, 8], repetitions: quick ? 2 : 5)
    if !quick { try measure(.large, clones: [1, 8], repetitions: 5) }
  }

  /// A parent that writes all the time, to all of its memory in use: what it writes between arming and freezing
  /// has to be protected again within the pause.
  func runBusy() throws {
    let size = GuestSize.medium
    say("fork of a busy parent: \(size.name)")
    try snowfork.start("dev", GuestSize(ramMib: size.ramMib, inUseMib: 0))
    _ = try snowfork.execute(on: "dev", ["sf-load", "churn", "\(size.inUseMib)"])
    var forks: [Snowfork.Fork] = []
    for _ in 0..<(quick ? 2 : 5) {
      let fork = try snowfork.fork("dev", clones: 1)
      forks.append(fork)
      try snowfork.kill(fork.ticket)
    }
    try recorder.record("snowfork", "busy_pause_us", size, clones: 1, forks.map(\.parentPauseUs))
    try recorder.record("snowfork", "busy_fork_us", size, clones: 1, forks.map(\.forkUs))
    try snowfork.destroy("dev")
  }

  private func measure(_ size: GuestSize, clones counts: [Int], repetitions: Int) throws {
    say("fork: \(size.name)")
    try snowfork.start("dev", size)
    for count in counts {
      var forks: [Snowfork.Fork] = []
      for _ in 0..<repetitions {
        let fork = try snowfork.fork("dev", clones: count)
        forks.append(fork)
        try snowfork.kill(fork.ticket)
      }
      try record(forks, size, clones: count)
    }
    try snowfork.destroy("dev")
  }

  private func record(_ forks: [Snowfork.Fork], _ size: GuestSize, clones: Int) throws {
    func record(_ figure: String, _ value: (Snowfork.Fork) -> Double?) throws {
      try recorder.record("snowfork", figure, size, clones: clones, forks.compactMap(value))
    }
    try record("pause_us") { $0.parentPauseUs }
    try record("fork_us") { $0.forkUs }
    try record("first_ready_us") { $0.clones.map(\.readyUs).min() }
    try record("activate_us_max") { $0.clones.map(\.activateUs).max() }
    try record("ticket_us") { $0.ticketUs }
    try record("ticket_and_fork_us") { $0.ticketUs + $0.forkUs }
    try record("command_us") { $0.commandUs }
    try record("descriptor_bytes") { $0.descriptorBytes }
    for phase in forks[0].phases.map(\.phase) {
      try record("phase_\(phase)_us") { fork in
        fork.phases.first { $0.phase == phase }.map { $0.endUs - $0.beginUs }
      }
    }
    let pause = recorder.median("snowfork", "pause_us", size, clones: clones) ?? 0
    let total = recorder.median("snowfork", "fork_us", size, clones: clones) ?? 0
    say("  \(clones) clones: pause \(milliseconds(pause)), ready after \(milliseconds(total))")
  }
}

/// What idle clones cost in memory that nobody shares with them.
struct MemoryBench {
  let snowfork: Snowfork
  let recorder: Recorder
  let quick: Bool
  /// What an idle clone's guest does by itself has happened by then.
  private static let settlingSeconds: UInt32 = 5

  func run() throws {
    say("memory of idle clones: \(GuestSize.small.name)")
    try snowfork.start("dev", .small)
    for count in quick ? [8] : [8, 32] {
      let fork = try snowfork.fork("dev", clones: count)
      sleep(Self.settlingSeconds)
      let machines = try snowfork.machines()
      let clones = machines.filter { $0.role == "clone" }.sorted { $0.vmid < $1.vmid }
      let own = try clones.map { try Self.anonymousBytes($0.pid) - $0.privateBytes }
      guard let last = clones.last, let lastOwn = own.last else { throw BenchError("there are no clones") }
      try recorder.record(
        "snowfork", "clone_private_bytes", .small, clones: count, clones.map(\.privateBytes))
      try recorder.record("snowfork", "clone_qemu_own_bytes", .small, clones: count, own)
      try recorder.record("snowfork", "last_clone_private_bytes", .small, clones: count, [last.privateBytes])
      try recorder.record("snowfork", "last_clone_qemu_own_bytes", .small, clones: count, [lastOwn])
      try snowfork.kill(fork.ticket)
    }
    // The parent's RAM is a shared file: all that is anonymous there is QEMU's own.
    if let parent = try snowfork.machines().first(where: { $0.role == "parent" }) {
      try recorder.record("snowfork", "parent_qemu_own_bytes", .small, [try Self.anonymousBytes(parent.pid)])
    }
    try snowfork.destroy("dev")
  }

  /// Memory that no file backs, guest pages that the clone wrote included.
  private static func anonymousBytes(_ pid: pid_t) throws -> Double {
    let data = FileManager.default.contents(atPath: "/proc/\(pid)/smaps_rollup") ?? Data()
    let line = String(decoding: data, as: UTF8.self).split(separator: "\n").first {
      $0.hasPrefix("Anonymous:")
    }
    guard let kibibytes = line?.split(separator: " ").dropFirst().first.flatMap({ Double($0) }) else {
      throw BenchError("process \(pid) shows no memory")
    }
    return kibibytes * 1024
  }
}

/// How much slower a program runs in a clone than in its warm parent, by the guest's own clock.
struct SlowdownBench {
  let snowfork: Snowfork
  let recorder: Recorder
  let quick: Bool
  /// Some 4 s under TCG.
  private static let rounds = 1_500_000_000

  func run() throws {
    say("slowdown of a program in a clone: \(GuestSize.small.name)")
    try snowfork.start("dev", .small)
    var parent: [Double] = []
    var runs: [[Double]] = [[], []]
    _ = try spin(on: "dev")
    for _ in 0..<(quick ? 1 : 3) {
      parent.append(try spin(on: "dev"))
      let fork = try snowfork.fork("dev", clones: 1)
      for run in runs.indices { runs[run].append(try spin(on: fork.clones[0].name)) }
      try snowfork.kill(fork.ticket)
    }
    try snowfork.destroy("dev")
    try recorder.record("snowfork", "parent_run_us", .small, parent)
    for (run, samples) in zip(["first", "second"], runs) {
      try recorder.record("snowfork", "clone_\(run)_run_us", .small, clones: 1, samples)
      let slowdown = samples.map { ($0 / parent.median - 1) * 100 }
      try recorder.record("snowfork", "clone_\(run)_slowdown_percent", .small, clones: 1, slowdown)
    }
  }

  private func spin(on name: String) throws -> Double {
    let text = try snowfork.execute(on: name, ["sf-load", "spin", "\(Self.rounds)"])
    guard let nanoseconds = text.split(separator: " ").first.flatMap({ Double($0) }) else {
      throw BenchError("sf-load said “\(text)”")
    }
    return nanoseconds / 1000
  }
}
