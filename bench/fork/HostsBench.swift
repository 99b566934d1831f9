import BenchSupport
import Foundation

/// Forks over the hosts of a lab, which share this machine's processors.
struct HostsBench {
  let snowfork: Snowfork
  let recorder: Recorder
  let hosts: Int
  let quick: Bool

  func run() throws {
    try one()
    try snowfork.start("dev", .small)
    for count in quick ? [hosts] : [hosts, 2 * hosts, 4 * hosts] {
      try many(count)
      try atHome(count)
    }
    try snowfork.destroy("dev")
    show()
  }

  /// One clone on one other host: the first of its parent, for which no working set is recorded, and those after it.
  private func one() throws {
    say("one clone on another host")
    var first: [Snowfork.Fork] = []
    var later: [Snowfork.Fork] = []
    var faults: [Snowfork.Statistics] = []
    for _ in 0..<(quick ? 1 : 5) {
      try snowfork.start("dev", .small)
      for round in 0..<(quick ? 2 : 4) {
        let fork = try snowfork.fork("dev", clones: 1, ["--host", "h2", "--transport", "unicast"])
        if round == 0 {
          first.append(fork)
          faults.append(try snowfork.statistics(fork.ticket))
        } else {
          later.append(fork)
        }
        try snowfork.kill(fork.ticket)
      }
      try snowfork.destroy("dev")
    }
    try record("remote_first_fork_us", 1, first.map(\.forkUs))
    try record("remote_fork_us", 1, later.map(\.forkUs))
    try record("remote_fault_p50_us", 1, faults.map(\.remoteFaultUs.p50))
    try record("remote_fault_p99_us", 1, faults.map(\.remoteFaultUs.p99))
  }

  private func many(_ clones: Int) throws {
    say("\(clones) clones on \(hosts) hosts")
    var forks: [Snowfork.Fork] = []
    var statistics: [Snowfork.Statistics] = []
    for _ in 0..<(quick ? 2 : 7) {
      let fork = try snowfork.fork("dev", clones: clones)
      forks.append(fork)
      statistics.append(try snowfork.statistics(fork.ticket))
      try snowfork.kill(fork.ticket)
    }
    try record("hosts_fork_us", clones, forks.map(\.forkUs))
    try record("hosts_pause_us", clones, forks.map(\.parentPauseUs))
    try record(
      "hosts_first_remote_us", clones,
      forks.compactMap { fork in fork.clones.filter { $0.host != "h1" }.map(\.readyUs).min() })
    for phase in forks[0].phases.map(\.phase) {
      try record(
        "hosts_phase_\(phase)_us", clones,
        forks.compactMap { fork in fork.phases.first { $0.phase == phase }.map { $0.endUs - $0.beginUs } })
    }
    try record("hosts_sent_bytes", clones, statistics.map(\.mcdist.bytesSent))
  }

  /// The same on the parent's host alone: what these processors need for so many clones without a network.
  private func atHome(_ clones: Int) throws {
    var forks: [Snowfork.Fork] = []
    for _ in 0..<(quick ? 2 : 7) {
      let fork = try snowfork.fork("dev", clones: clones, ["--host", "h1"])
      forks.append(fork)
      try snowfork.kill(fork.ticket)
    }
    try record("home_fork_us", clones, forks.map(\.forkUs))
  }

  private func record(_ figure: String, _ clones: Int, _ samples: [Double]) throws {
    try recorder.record("snowfork", figure, .small, clones: clones, samples)
  }

  private func median(_ figure: String, _ clones: Int) -> Double? {
    recorder.median("snowfork", figure, .small, clones: clones)
  }

  private func show() {
    say("\nForks over \(hosts) hosts of one machine, medians:")
    for clones in [hosts, 2 * hosts, 4 * hosts] {
      guard let fork = median("hosts_fork_us", clones), let pause = median("hosts_pause_us", clones),
        let first = median("hosts_first_remote_us", clones), let sent = median("hosts_sent_bytes", clones),
        let home = median("home_fork_us", clones)
      else { continue }
      say(
        "  \(clones) clones: ready after \(milliseconds(fork)), the first on another host after \(milliseconds(first)), "
          + "pause \(milliseconds(pause)), \(String(format: "%.1f", sent / 1e6)) MB sent; on one host \(milliseconds(home)), "
          + "\(String(format: "%.2f", fork / home)) times")
    }
    say("\nWanted:")
    if hosts == 8 { atMost("32 clones ready", "hosts_fork_us", 32, 1_000_000, milliseconds) }
    atMost("one clone on another host, first fork", "remote_first_fork_us", 1, 100_000, milliseconds)
    atMost("one clone on another host, later forks", "remote_fork_us", 1, 100_000, milliseconds)
    atMost("remote fault, p50", "remote_fault_p50_us", 1, 150) { "\(Int($0)) µs" }
  }

  private func atMost(
    _ what: String, _ figure: String, _ clones: Int, _ limit: Double, _ text: (Double) -> String
  ) {
    guard let value = median(figure, clones) else { return }
    say("  \(mark(value <= limit)) \(what): \(text(value)) (≤ \(text(limit)))")
  }
}
