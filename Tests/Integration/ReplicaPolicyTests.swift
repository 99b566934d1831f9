import Foundation
import Support
import Testing

/// What the suites below ask of h1.
extension TestHost {
  fileprivate func replicas() throws -> [ReplicaList.Replica] {
    try document("replica", "ls", as: ReplicaList.self).replicas
  }

  /// Of dev, which is on h1.
  fileprivate func deviceReplica() throws -> ReplicaList.Replica {
    try #require(try replicas().first { $0.role == "device" })
  }

  /// What has come to h2 of checkpoints.
  fileprivate var incoming: [String] {
    let files = FileManager.default.enumerator(atPath: state + "/lab/h2/replicas/in")?.allObjects
    return (files as? [String] ?? []).filter { $0.contains("incoming-") }
  }
}

/// The device's power supply is a directory of the test's.
@Suite("Policies of replication", .serialized, .ownLab(hosts: 2))
struct ReplicaPolicyTests {
  private let host: TestHost

  init() throws {
    host = try #require(TestHost.here)
    try host.device(options: ["--no-network"])
  }

  private func setCharging(_ isCharging: Bool) throws {
    for (file, text) in [
      ("AC/type", "Mains"), ("AC/online", isCharging ? "1" : "0"), ("BAT0/type", "Battery"),
      ("BAT0/status", isCharging ? "Charging" : "Discharging"), ("BAT0/capacity", "50"),
    ] {
      let path = "\(host.powerSupplies)/\(file)"
      try FileManager.default.createDirectory(
        atPath: (path as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
      try text.write(toFile: path, atomically: true, encoding: .utf8)
    }
  }

  private func policy(_ rules: String) throws -> String {
    let path = host.directory + "/policy.json"
    try "{\"version\": 1, \"name\": \"mains only\",\n \"rules\": [\(rules)]}".write(
      toFile: path, atomically: true, encoding: .utf8)
    return path
  }

  @Test("Checkpoints wait for the mains, over a daemon's death, and come as soon as there are some")
  func onlyWhenCharging() throws {
    try setCharging(false)
    let path = try policy(
      #"{"when": {"charging": true}, "background_s": 0.5}, {"name": "on battery", "background_s": "never"}"#)
    let begun = try host.sfctl("replicate", "dev", "--to", "h2", "--policy", path)
    try #require(begun.status == 0, "\(begun.error)\n\(host.daemonLog.suffix(2000))")
    #expect(begun.text.contains("when policy mains only wants it: “on battery”: none in the background"))
    defer { _ = try? host.sfctl("replica", "rm", "dev") }
    func expectWaiting(at sequence: Int) throws {
      // It must last.
      sleep(3)
      let device = try host.deviceReplica()
      #expect(device.state == "waiting" && device.sequence == sequence, "\(device)")
      #expect(device.policy == "mains only" && device.policyReason == "“on battery”: none in the background")
    }
    try expectWaiting(at: 0)
    #expect(try host.replicas().count == 1)
    for pid in host.pids(of: "sfd", on: "h1") { kill(pid, SIGKILL) }
    _ = try host.sfctl("host", "ls")
    try expectWaiting(at: 0)

    try setCharging(true)
    #expect(
      eventually(seconds: 60) { (try? host.deviceReplica().sequence > 2) == true },
      "\(host.daemonLog.suffix(3000))")
    let goes = try host.deviceReplica()
    #expect(goes.state == "replicating" && goes.policyReason.hasPrefix("rule 1: "), "\(goes)")
    for pid in host.pids(of: "sfd", on: "h1") { kill(pid, SIGKILL) }
    #expect(eventually(seconds: 60) { (try? host.deviceReplica().sequence > goes.sequence + 1) == true })

    try setCharging(false)
    #expect(eventually(seconds: 30) { (try? host.deviceReplica().state) == "waiting" })
    let sequence = try host.deviceReplica().sequence
    try expectWaiting(at: sequence)
    // On demand is another level.
    let asked: CheckpointDocument = try host.document("checkpoint", "dev")
    #expect(asked.sequence == sequence + 1)

    let strict = try policy(
      #"{"when": {"charging": true}, "background_s": 1}, {"background_s": "never", "on_demand_s": "never"}"#)
    #expect(try host.sfctl("replicate", "dev", "--to", "h2", "--policy", strict).status == 0)
    let refused = try host.sfctl("checkpoint", "dev")
    #expect(refused.status == 4 && refused.error.contains("rule 2: none on demand"), "\(refused.error)")
    // A period takes the policy's place.
    #expect(try host.sfctl("replicate", "dev", "--to", "h2", "--every", "0.5").status == 0)
    #expect(eventually(seconds: 30) { (try? host.deviceReplica().sequence > asked.sequence + 1) == true })
    #expect(try host.deviceReplica().policy.isEmpty)
  }

  @Test("An idle VM gets fewer checkpoints than one that computes; one on a metered link gets none")
  func whatTheVMDoes() throws {
    try setCharging(true)
    let path = try policy(
      #"{"name": "metered", "when": {"metered": true}, "background_s": "never"},"#
        + #"{"name": "busy", "when": {"idle": false}, "background_s": 0.5},"#
        + #"{"name": "idle", "when": {"idle": true}, "background_s": 3600},"#
        + #"{"name": "unknown", "background_s": 3600}"#)
    #expect(try host.sfctl("replicate", "dev", "--to", "h2", "--policy", path).status == 0)
    defer { _ = try? host.sfctl("replica", "rm", "dev") }
    func says(_ rule: String) -> Bool {
      eventually(seconds: 60) { (try? host.deviceReplica().policyReason.hasPrefix("“\(rule)”")) == true }
    }
    #expect(says("idle"), "\(host.daemonLog.suffix(2000))")
    try host.inside("dev", "sh", "-c", "(while :; do :; done) >/dev/null 2>&1 & echo $! >/pid")
    #expect(says("busy"), "\(host.daemonLog.suffix(2000))")
    let sequence = try host.deviceReplica().sequence
    #expect(eventually(seconds: 30) { (try? host.deviceReplica().sequence > sequence + 2) == true })
    try host.inside("dev", "sh", "-c", "kill $(cat /pid); rm /pid")
    #expect(says("idle"), "\(host.daemonLog.suffix(2000))")
    #expect(
      try host.sfctl("replicate", "dev", "--to", "h2", "--policy", path, "--metered").status == 0)
    #expect(says("metered"), "\(host.daemonLog.suffix(2000))")
    #expect(try host.deviceReplica().state == "waiting")
  }
}

/// The link of h1 is slow: what is sent takes its time.
@Suite("Replication over a slow link", .serialized, .ownLab(hosts: 2, options: ["--link", "wifi"]))
struct SlowReplicaTests {
  @Test("A first transfer that is stopped leaves nothing on the standby's host")
  func stopped() throws {
    let host = try #require(TestHost.here)
    try host.device(options: ["--no-network"])
    let first = try host.start(["replicate", "dev", "--to", "h2"])
    #expect(eventually(seconds: 60) { !host.incoming.isEmpty }, "\(host.daemonLog.suffix(2000))")
    let stopped = try host.sfctl("replicate", "dev", "--stop")
    #expect(stopped.status == 0, "\(stopped.error)")
    #expect(host.incoming.isEmpty)
    #expect(try first.wait().status != 0)
    #expect(try host.replicas().isEmpty)
    #expect(!FileManager.default.fileExists(atPath: host.state + "/lab/h2/replicas"))
  }

  @Test("Checkpoints come by themselves while a program holds a ticket; its fork sends little")
  func nearFork() throws {
    let host = try #require(TestHost.here)
    try host.device(options: ["--no-network"])
    #expect(try host.sfctl("lab", "link", "lan").status == 0)
    #expect(try host.sfctl("replicate", "dev", "--to", "h2").status == 0)
    #expect(try host.sfctl("lab", "link", "wifi").status == 0)
    defer { _ = try? host.sfctl("replicate", "dev", "--stop") }
    func sequence() throws -> Int { try host.deviceReplica().sequence }
    func sent() throws -> Int {
      let file = "/sys/class/net/eth0/statistics/tx_bytes"
      let text = try host.command(on: "h1", ["cat", file]).wait().text
      return try #require(Int(text.trimmingCharacters(in: .whitespacesAndNewlines)))
    }
    // From this transfer it is known how slow the link is.
    try host.inside("dev", "dd", "if=/dev/urandom", "of=/f", "bs=1k", "count=1500")
    #expect(try host.sfctl("checkpoint", "dev").status == 0)
    let program = try host.start(
      ["exec", "dev", "--", "sh", "-c", "rm -f /tmp/go /tmp/fork; exec sf-wait 1 h2 /tmp/fork"])
    try host.inside("dev", "dd", "if=/dev/urandom", "of=/g", "bs=1k", "count=1500")
    let written = try sequence()
    #expect(try eventually(seconds: 60) { try sequence() >= written + 2 }, "\(host.daemonLog.suffix(2000))")
    let before = try sent()
    try host.inside("dev", "touch", "/tmp/fork")
    #expect(eventually(seconds: 60) { (try? host.vm("dev.1")?.state) == "running" })
    let after = try sent()
    // A few pages; the descriptor has 400 KB, and the file 1,500.
    #expect(after - before < 600_000, "\(after - before) bytes\n\(host.daemonLog.suffix(2000))")
    let digests = try ["dev", "dev.1"].map { try host.sfctl("exec", $0, "--", "md5sum", "/f", "/g").text }
    #expect(digests[0] == digests[1] && digests[0].contains("/g"))
    try host.inside("dev.1", "touch", "/tmp/go")
    #expect(try program.wait(seconds: 60).status == 0)
    // Nobody holds a ticket.
    let last = try sequence()
    Thread.sleep(forTimeInterval: 8)
    #expect(try sequence() == last)
  }
}

/// The device's host lives and is out of reach when its standby is activated.
@Suite("A device that was only cut off", .serialized, .ownLab(hosts: 2))
struct CutOffDeviceTests {
  @Test("Its home learns that its standby runs, without a checkpoint, and says so until that is over")
  func learns() throws {
    let host = try #require(TestHost.here)
    try host.device(options: ["--no-network"])
    #expect(try host.sfctl("replicate", "dev", "--to", "h2").status == 0)
    #expect(try host.sfctl("lab", "cut", "h2").status == 0)
    let activated = try host.on("h2", "replica", "activate", "dev")
    try #require(activated.status == 0, "\(activated.error)\n\(host.daemonLog.suffix(3000))")
    defer { _ = try? host.on("h2", "vm", "destroy", "dev") }
    #expect(try host.sfctl("lab", "mend", "h2").status == 0)
    #expect(
      eventually(seconds: 60) { (try? host.deviceReplica().state) == "replaced" },
      "\(host.daemonLog.suffix(3000))")
    let reason = "the standby of dev runs on host h2 in its place, and dev runs here too"
    #expect(try host.deviceReplica().reason == reason)
    #expect(host.daemonLog.contains(reason))
    func reasonHere() throws -> String? {
      try host.vms().first { $0.name == "dev" && $0.host == "h1" }?.reason
    }
    #expect(try reasonHere() == reason)
    for pid in host.pids(of: "sfd", on: "h1") { kill(pid, SIGKILL) }
    #expect(try host.deviceReplica().state == "replaced")
    let refused = try host.sfctl("checkpoint", "dev")
    #expect(refused.status == 4 && refused.error.contains("runs on host h2 in its place"), "\(refused.error)")
    #expect(try host.sfctl("replicate", "dev", "--to", "h2").status == 4)
    // Both run.
    for name in ["h1", "h2"] { #expect(try host.on(name, "exec", "dev", "--", "true").status == 0) }
    #expect(try host.sfctl("replicate", "dev", "--stop").status == 0)
    #expect(try host.replicas().isEmpty)
    #expect(try reasonHere() == "")
  }
}
