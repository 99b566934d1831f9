import BenchSupport
import Foundation

/// What QEMU has of its own: a cold boot, migration to a file and from it, `savevm` and `loadvm`.
///
/// `pause_us` is from the order to stop until the guest could run again, the state then being complete;
/// `restore_us` from the start of a new QEMU until its agent answered; `migrate-live` is the migration of the running
/// guest, of which QEMU itself tells for how long it stopped it.
struct QEMUPeer {
  let image: GuestImage
  let recorder: Recorder
  let workspace: Workspace

  func run(_ size: GuestSize, repetitions: Int) throws {
    say("peers of QEMU: \(size.name)")
    let disk = workspace.file("state.qcow2")
    let stream = workspace.file("stream")
    _ = try output(of: "/usr/bin/qemu-img", ["create", "-q", "-f", "qcow2", disk, "64M"])
    let source = try boot(size, disk: disk, repetitions: repetitions)
    let monitor = try source.monitor()
    try migrateToFile(monitor, stream, size, repetitions)
    try migrateLive(monitor, size, repetitions)
    try saveVM(monitor, size, repetitions)
    source.end()
    try restoreFromFile(stream, size, repetitions)
    try FileManager.default.removeItem(atPath: stream)
    try loadVM(disk, size, repetitions)
    try FileManager.default.removeItem(atPath: disk)
  }

  /// Boots as often as wanted; the last machine runs on, with its memory in use.
  private func boot(_ size: GuestSize, disk: String, repetitions: Int) throws -> PeerMachine {
    var samples: [Double] = []
    while true {
      let watch = Stopwatch()
      let machine = try PeerMachine(.boot(image), size, disk: disk, in: workspace)
      let agent = try AgentLink(path: machine.agentPath)
      samples.append(watch.microseconds)
      if samples.count == repetitions {
        try recorder.record("cold-boot", "restore_us", size, samples)
        if size.inUseMib > 0 { try agent.execute(["sf-load", "fill", "\(size.inUseMib)"]) }
        return machine
      }
      machine.end()
    }
  }

  private func migrateToFile(_ monitor: MonitorClient, _ file: String, _ size: GuestSize, _ repetitions: Int)
    throws
  {
    try monitor.prepareMigration()
    var pauses: [Double] = []
    for _ in 0..<repetitions {
      let watch = Stopwatch()
      try monitor.execute("stop")
      try monitor.execute("migrate", ["uri": "exec:cat >\(file)"])
      try monitor.waitForMigration()
      pauses.append(watch.microseconds)
      try monitor.cont()
    }
    try recorder.record("migrate-file", "pause_us", size, pauses)
  }

  private func migrateLive(_ monitor: MonitorClient, _ size: GuestSize, _ repetitions: Int) throws {
    let file = workspace.file("live")
    defer { try? FileManager.default.removeItem(atPath: file) }
    var pauses: [Double] = []
    var totals: [Double] = []
    for _ in 0..<repetitions {
      let watch = Stopwatch()
      try monitor.execute("migrate", ["uri": "exec:cat >\(file)"])
      try monitor.waitForMigration()
      totals.append(watch.microseconds)
      let answer = try monitor.execute("query-migrate") as? [String: Any]
      guard let downtime = answer?["downtime"] as? Double else { throw BenchError("QEMU tells no downtime") }
      pauses.append(downtime * 1000)
      try monitor.cont()
    }
    try recorder.record("migrate-live", "pause_us", size, pauses)
    try recorder.record("migrate-live", "save_us", size, totals)
  }

  private func restoreFromFile(_ file: String, _ size: GuestSize, _ repetitions: Int) throws {
    var samples: [Double] = []
    for _ in 0..<repetitions {
      let watch = Stopwatch()
      let machine = try PeerMachine(.incoming, size, in: workspace)
      let monitor = try machine.monitor()
      try monitor.prepareMigration()
      try monitor.execute("migrate-incoming", ["uri": "exec:cat \(file)"])
      try monitor.waitForMigration()
      // The source was stopped, and what comes in is as it was.
      try monitor.cont()
      _ = try AgentLink(path: machine.agentPath)
      samples.append(watch.microseconds)
      machine.end()
    }
    try recorder.record("migrate-file", "restore_us", size, samples)
  }

  private func saveVM(_ monitor: MonitorClient, _ size: GuestSize, _ repetitions: Int) throws {
    var pauses: [Double] = []
    for repetition in 0..<repetitions {
      let watch = Stopwatch()
      try monitor.human("savevm state")
      pauses.append(watch.microseconds)
      if repetition < repetitions - 1 { try monitor.human("delvm state") }
    }
    try recorder.record("savevm", "pause_us", size, pauses)
  }

  private func loadVM(_ disk: String, _ size: GuestSize, _ repetitions: Int) throws {
    var samples: [Double] = []
    for _ in 0..<repetitions {
      let watch = Stopwatch()
      let machine = try PeerMachine(.loadvm("state"), size, disk: disk, in: workspace)
      _ = try AgentLink(path: machine.agentPath)
      samples.append(watch.microseconds)
      machine.end()
    }
    try recorder.record("savevm", "restore_us", size, samples)
  }
}
