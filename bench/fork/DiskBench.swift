import BenchSupport
import Foundation

/// What a disk costs a fork, what crosses the network when clones read it, and how fast they write.
struct DiskBench {
  let snowfork: Snowfork
  let recorder: Recorder
  let hosts: Int
  let quick: Bool
  private static let readMib = 200
  private static let writeMib = 128

  func run() throws {
    try pause()
    try reading()
    try writing()
    show()
  }

  private var rounds: Int { quick ? 3 : 15 }

  /// The parent's pause with an idle disk of 1 GiB and without one, in turns.
  private func pause() throws {
    var pauses: [String: [Double]] = [:]
    try snowfork.start("plain", .small)
    try snowfork.start("disk", .small, ["--disk", "1G"])
    for _ in 0..<rounds {
      for name in ["plain", "disk"] {
        let fork = try snowfork.fork(name, clones: 1, ["--host", "h1"])
        pauses[name, default: []].append(fork.parentPauseUs)
        try snowfork.kill(fork.ticket)
      }
    }
    for (name, samples) in pauses { try record("pause_\(name)_us", 1, samples) }
    for name in ["plain", "disk"] { try snowfork.destroy(name) }
  }

  /// Two clones on each other host read what the parent had written.
  private func reading() throws {
    try snowfork.start("dev", .small, ["--disk", "1G"])
    let write = "dd if=/dev/urandom of=/dev/vda bs=1M count=\(Self.readMib) conv=fsync 2>/dev/null"
    let sum = "dd if=/dev/vda bs=1M count=\(Self.readMib) 2>/dev/null | md5sum"
    _ = try snowfork.execute(on: "dev", ["sh", "-c", write])
    let right = try snowfork.execute(on: "dev", ["sh", "-c", "echo 3 >/proc/sys/vm/drop_caches; " + sum])
    let others = Snowfork.onOthers(hosts)
    let count = 2 * (hosts - 1)
    let fork = try snowfork.fork("dev", clones: count, others)
    let before = try snowfork.sentBytes(of: "h1")
    let memoryBefore = try snowfork.statistics(fork.ticket).mcdist.bytesSent
    let watch = Stopwatch()
    let snowfork = snowfork
    let sums = try LockstepBench.inAll(fork.clones.map(\.name)) {
      try snowfork.execute(on: $0, ["sh", "-c", sum])
    }
    guard sums.allSatisfy({ $0 == right }) else {
      throw BenchError("a clone read other bytes than its parent wrote")
    }
    try record("read_us", count, [watch.microseconds])
    try record("read_sent_bytes", count, [try snowfork.sentBytes(of: "h1") - before])
    try record(
      "read_memory_bytes", count, [try snowfork.statistics(fork.ticket).mcdist.bytesSent - memoryBefore])
    try record("read_bytes", count, [Double(Self.readMib << 20)])
    try snowfork.kill(fork.ticket)
    try snowfork.destroy("dev")
  }

  /// A clone writes to its file over what it was forked with, a VM of its own to a file over nothing.
  private func writing() throws {
    var samples: [String: [Double]] = [:]
    try snowfork.start("dev", .small, ["--disk", "1G"])
    let write = "dd if=/dev/zero of=/dev/vda bs=1M count=\(Self.writeMib) oflag=direct conv=fsync 2>&1"
    for _ in 0..<(quick ? 1 : 5) {
      try snowfork.start("own", .small, ["--disk", "1G"])
      let fork = try snowfork.fork("dev", clones: 1, ["--host", "h1"])
      for (figure, name) in [("write_clone_us", fork.clones[0].name), ("write_own_us", "own")] {
        let watch = Stopwatch()
        _ = try snowfork.execute(on: name, ["sh", "-c", write])
        samples[figure, default: []].append(watch.microseconds)
      }
      try snowfork.kill(fork.ticket)
      try snowfork.destroy("own")
    }
    for (figure, values) in samples { try record(figure, 1, values) }
    try snowfork.destroy("dev")
  }

  private func record(_ figure: String, _ clones: Int, _ samples: [Double]) throws {
    try recorder.record("snowfork", figure, .small, clones: clones, samples)
  }

  private func median(_ figure: String, _ clones: Int = 1) -> Double {
    recorder.median("snowfork", figure, .small, clones: clones) ?? .nan
  }

  private func show() {
    let count = 2 * (hosts - 1)
    let (plain, disk) = (median("pause_plain_us"), median("pause_disk_us"))
    let layers = median("read_sent_bytes", count) - median("read_memory_bytes", count)
    let sent = layers / median("read_bytes", count) / Double(hosts - 1)
    let write = median("write_own_us") / median("write_clone_us")
    say("\nWanted:")
    wanted(
      disk - plain <= 5000,
      "pause \(milliseconds(disk)) with a disk, \(milliseconds(plain)) without (≤ 5 ms more)")
    wanted(
      sent <= 1.1,
      String(
        format:
          "%d clones on %d hosts read %d MiB in %@: the origin sent %.2f times as much for each host (≤ 1.1)",
        count, hosts - 1, Self.readMib, milliseconds(median("read_us", count)), sent))
    wanted(
      write >= 0.9,
      String(format: "a clone writes %.2f times as fast as a VM to a file over nothing (≥ 0.9)", write))
  }

  private func wanted(_ isReached: Bool, _ text: String) {
    say("  \(mark(isReached)) \(text)")
  }
}
