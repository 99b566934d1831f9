import Foundation
import Support
import Testing

/// A standby of `dev` (on h1) on h2.
@Suite("Standbys of a device VM", .serialized, .ownLab(hosts: 2))
struct ReplicaTests {
  let host: TestHost

  init() throws {
    host = try #require(TestHost.here)
    try host.device(options: ["--no-network"])
    // What earlier tests wrote is in the guest's memory.
    try host.inside("dev", "sh", "-c", "rm -f /?")
  }

  func replicate(_ options: String...) throws {
    let outcome = try host.start(["replicate", "dev", "--to", "h2"] + options).wait()
    try #require(outcome.status == 0, "\(outcome.error)\n\(host.daemonLog.suffix(2000))")
  }

  func checkpoint() throws -> CheckpointDocument { try host.document("checkpoint", "dev") }

  func replicas() throws -> [ReplicaList.Replica] {
    try host.document("replica", "ls", as: ReplicaList.self).replicas
  }

  func removeReplica() { _ = try? host.sfctl("replica", "rm", "dev") }

  /// Fills a file in the guest's memory with noise; answers its digest.
  func fill(_ file: String, mebibytes: Int) throws -> String {
    try host.inside(
      "dev", "sh", "-c",
      "dd if=/dev/urandom of=/\(file) bs=1M count=\(mebibytes) 2>/dev/null; sha256sum /\(file)")
  }

  func digest(of file: String, in twin: String) throws -> String {
    try host.inside(twin, "sha256sum", file)
  }

  /// Runs `body` with the standby as a VM beside its device VM.
  private func withTwin(_ body: (_ name: String) throws -> Void) throws {
    // A new name each time: after a daemon's death libvirt keeps a dead machine's for a while.
    let twin = "twin\(Int.random(in: 100...999))"
    let outcome = try host.sfctl("replica", "activate", "dev", "--as", twin)
    try #require(outcome.status == 0, "\(outcome.error)\n\(host.daemonLog.suffix(2000))")
    defer { _ = try? host.sfctl("vm", "destroy", twin) }
    try body(twin)
  }

  @Test("A checkpoint brings what changed, and the standby is what the VM was")
  func checkpoints() throws {
    let first = try fill("a", mebibytes: 8)
    try replicate()
    defer { removeReplica() }
    #expect(try replicas().map(\.role) == ["device", "standby"])
    let idle = try checkpoint()
    #expect(idle.sequence == 2 && idle.host == "h2" && idle.bytesSent < 1 << 20, "\(idle)")
    let second = try fill("b", mebibytes: 8)
    let written = try checkpoint()
    #expect(written.sequence == 3 && written.dirtyPages >= 2048 && written.bytesSent > 8 << 20, "\(written)")
    let refused = try host.sfctl("replica", "activate", "dev")
    #expect(refused.status == 4 && refused.error.contains("dev runs on host h1"), "\(refused.error)")
    try withTwin { twin in
      let name = try host.inside(twin, "hostname")
      let (a, b) = (try digest(of: "/a", in: twin), try digest(of: "/b", in: twin))
      #expect(name == twin + "\n" && a == first && b == second)
      // The VM goes on being replicated: the twin has the standby, so another one is made.
      let next = try checkpoint()
      #expect(next.sequence > 3 && next.bytesSent > 16 << 20)
    }
    let sequences = try replicas().map(\.sequence)
    #expect(sequences.count == 2 && sequences[0] == sequences[1])
    #expect(try host.inside("dev", "sha256sum", "/a") == first)
  }

  @Test("Many checkpoints while a program forks, writes and checks its memory")
  func everyPage() throws {
    try replicate("--every", "0.1")
    defer { removeReplica() }
    let lines = try host.lines(inside: "dev", "sf-pattern 24 2")
    #expect(lines == (1...2).map { "\($0) exited 0 wrong 0 own 0" } + ["parent wrong 0"])
    let before = try replicas()[0].sequence
    #expect(eventually(seconds: 30) { (try? replicas()[0].sequence > before + 3) == true })
    try withTwin { twin in
      let lines = try host.on("h2", "exec", twin, "--", "sf-pattern", "24", "2").lines
      #expect(lines == (1...2).map { "\($0) exited 0 wrong 0 own 0" } + ["parent wrong 0"])
    }
  }

  @Test("Checkpoints come by themselves while a program writes, and end with --stop")
  func byThemselves() throws {
    // The file is replaced as a whole: whoever reads it finds a number.
    try host.inside(
      "dev", "sh", "-c",
      "(i=0; while :; do i=$((i+1)); echo $i $i > /n.new; mv /n.new /n; done) >/dev/null 2>&1 &")
    try replicate("--every", "0.2")
    defer { removeReplica() }
    #expect(eventually(seconds: 30) { (try? replicas()[1].sequence > 5) == true })
    try withTwin { twin in
      func numbers() throws -> [Int] {
        try host.inside(twin, "cat", "/n").split(whereSeparator: \.isWhitespace).compactMap { Int($0) }
      }
      let now = try numbers()
      #expect(now.count == 2 && now.first == now.last)
      #expect(eventually { (try? numbers().first ?? 0) ?? 0 > now[0] })
    }
    #expect(try host.sfctl("replicate", "dev", "--stop").status == 0)
    #expect(try replicas().allSatisfy { $0.role == "standby" })
    #expect(try host.sfctl("checkpoint", "dev").status == 4)
  }

  @Test("A link that is cut in a transfer: it goes on where it was when the link is mended")
  func cutLink() throws {
    try replicate()
    defer { removeReplica() }
    let digest = try fill("c", mebibytes: 40)
    let checkpoint = try host.start(["checkpoint", "dev", "--json"])
    #expect(
      eventually(seconds: 20) {
        let incoming = host.state + "/lab/h2/replicas/in"
        let files = FileManager.default.enumerator(atPath: incoming)?.allObjects as? [String] ?? []
        return files.contains { $0.contains("incoming-") }
      })
    _ = try host.sfctl("lab", "cut", "h2")
    sleep(6)
    _ = try host.sfctl("lab", "mend", "h2")
    let outcome = try checkpoint.wait(seconds: 120)
    #expect(outcome.status == 0, "\(outcome.error)\n\(host.daemonLog.suffix(2000))")
    #expect(try replicas().map(\.sequence) == [2, 2])
    try withTwin { twin in
      let seen = try self.digest(of: "/c", in: twin)
      #expect(seen == digest)
    }
  }

  @Test("Daemons that are killed at any moment: no checkpoint is half", arguments: [20, 80, 200, 400])
  func killedDaemons(milliseconds: UInt32) throws {
    try replicate()
    defer { removeReplica() }
    for name in ["h1", "h2"] {
      let digest = try fill("d", mebibytes: 16)
      let checkpoint = try host.start(["checkpoint", "dev", "--json"])
      usleep(milliseconds * 1000)
      for pid in host.pids(of: "sfd", on: name) { kill(pid, SIGKILL) }
      _ = try checkpoint.wait(seconds: 120)
      // The next sfctl starts h1's daemon, and one on h2 its own.
      _ = try host.on(name, "host", "ls")
      #expect(
        eventually(seconds: 60) {
          guard let last: CheckpointDocument = try? host.document("checkpoint", "dev") else { return false }
          return (try? replicas().map(\.sequence)) == [last.sequence, last.sequence]
        }, "\(name) after \(milliseconds) ms\n\(host.daemonLog.suffix(3000))")
      try withTwin { twin in
        let seen = try self.digest(of: "/d", in: twin)
        #expect(seen == digest)
      }
    }
  }

  func standby() throws -> ReplicaList.Replica? { try replicas().first { $0.role == "standby" } }

  @Test("Clones of a standby see its checkpoint; later ones wait for them, and are then applied")
  func clonesOfAStandby() throws {
    let first = try fill("e", mebibytes: 4)
    try replicate()
    defer { removeReplica() }
    let forked = try host.on("h2", "fork", "dev", "-n", "2", "--host", "h2", "--json")
    try #require(forked.status == 0, "\(forked.error)\n\(host.daemonLog.suffix(2000))")
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    let fork = try decoder.decode(ForkDocument.self, from: forked.output)
    let second = try fill("e", mebibytes: 4)
    for sequence in 2...3 { #expect(try checkpoint().sequence == sequence) }
    let waiting = try #require(try standby())
    #expect(waiting.sequence == 1 && waiting.receivedSequence == 3)
    let refused = try host.sfctl("replica", "activate", "dev", "--as", "early")
    #expect(refused.status == 4 && refused.error.contains("clones of it run"), "\(refused.error)")
    for clone in fork.clones { #expect(try digest(of: "/e", in: clone.name) == first) }
    // The daemon that is next knows what waits.
    for pid in host.pids(of: "sfd", on: "h2") { kill(pid, SIGKILL) }
    #expect(try host.on("h2", "kill", fork.ticket).status == 0)
    _ = try host.on("h2", "join", fork.ticket)
    #expect(eventually(seconds: 20) { (try? standby()?.sequence) == 3 }, "\(host.daemonLog.suffix(2000))")
    try withTwin { twin in
      let seen = try self.digest(of: "/e", in: twin)
      #expect(seen == second)
    }
  }

  @Test("What can not be replicated is refused")
  func refusals() throws {
    #expect(try host.sfctl("replicate", "nobody", "--to", "h2").status == 3)
    #expect(try host.sfctl("replicate", "dev", "--to", "h9").status == 3)
    #expect(try host.sfctl("replicate", "dev", "--to", "h1").status == 2)
    #expect(try host.sfctl("replicate", "dev").status == 2)
    #expect(try host.sfctl("checkpoint", "dev").status == 4)
    #expect(try host.sfctl("replica", "activate", "dev").status == 3)
    #expect(try host.sfctl("replica", "rm", "dev").status == 3)
  }
}

/// The device's host is gone.
@Suite("Standbys of a device that is lost", .serialized, .ownLab(hosts: 2))
struct LostDeviceTests {
  let host: TestHost

  init() throws { host = try #require(TestHost.here) }

  @Test("A standby takes the place of its VM: its program goes on, it can be forked and replicated")
  func takesItsPlace() throws {
    try host.device()
    let address = try host.vm("dev")?.ip
    try host.inside(
      "dev", "sh", "-c",
      "(i=0; while :; do i=$((i+1)); echo $i $i > /n.new; mv /n.new /n; sleep 0.05; done) >/dev/null 2>&1 &")
    let digest = try host.inside(
      "dev", "sh", "-c", "dd if=/dev/urandom of=/a bs=1M count=8 2>/dev/null; sha256sum /a")
    #expect(try host.sfctl("replicate", "dev", "--to", "h2", "--every", "0.5").status == 0)
    #expect(
      eventually(seconds: 30) {
        (try? host.document("replica", "ls", as: ReplicaList.self).replicas[0].sequence > 2) == true
      })
    host.killHost("h1")
    let activated = try host.on("h2", "replica", "activate", "dev", "--json")
    try #require(activated.status == 0, "\(activated.error)\n\(host.daemonLog.suffix(3000))")
    defer { _ = try? host.on("h2", "vm", "destroy", "dev") }
    func inside(_ command: String...) throws -> String {
      let outcome = try host.start(
        ["lab", "exec", "h2", "--", ProjectFiles.programs + "/sfctl", "exec", "dev", "--"] + command
      ).wait()
      #expect(outcome.status == 0, "\(outcome.error)")
      return outcome.text
    }
    #expect(try inside("hostname") == "dev\n")
    #expect(try inside("sha256sum", "/a") == digest)
    func number() throws -> Int {
      Int(try inside("cat", "/n").split(whereSeparator: \.isWhitespace).first ?? "") ?? 0
    }
    let now = try number()
    #expect(now > 0)
    #expect(eventually { (try? number()) ?? 0 > now })
    // h1's daemon comes back with the first of these commands, without its VM; then both find each other.
    #expect(eventually(seconds: 30) { host.sees("dev", on: "h2") })
    #expect(try host.vm("dev")?.ip == address)
    let lines = try host.on("h2", "exec", "dev", "--", "sf-pattern", "16", "2").lines
    #expect(lines == (1...2).map { "\($0) exited 0 wrong 0 own 0" } + ["parent wrong 0"])
    let back = try host.on("h2", "replicate", "dev", "--to", "h1")
    #expect(back.status == 0, "\(back.error)\n\(host.daemonLog.suffix(3000))")
    #expect(try host.on("h2", "checkpoint", "dev").status == 0)
    #expect(try host.on("h2", "replica", "rm", "dev").status == 0)
  }
}
