import Foundation
import Support
import Testing

/// Standbys of device VMs that have disks: memory and disks are of the same instant, in every checkpoint.
@Suite("Standbys of VMs with disks", .serialized, .ownLab(hosts: 2))
struct ReplicaDiskTests {
  private let host: TestHost

  init() throws { host = try #require(TestHost.here) }

  private func sh(_ vm: String, _ command: String) throws -> String {
    try host.inside(vm, "sh", "-c", command)
  }

  private func replicas() throws -> [ReplicaList.Replica] {
    try host.document("replica", "ls", as: ReplicaList.self).replicas
  }

  private func checkpoint(_ name: String) throws -> CheckpointDocument {
    try host.document("checkpoint", name)
  }

  private func replicate(_ name: String, _ options: String...) throws {
    let outcome = try host.start(["replicate", name, "--to", "h2"] + options).wait(seconds: 120)
    try #require(outcome.status == 0, "\(outcome.error)\n\(host.daemonLog.suffix(3000))")
  }

  private func withTwin(of name: String, _ body: (_ twin: String) throws -> Void) throws {
    let twin = "twin\(Int.random(in: 100...999))"
    let outcome = try host.sfctl("replica", "activate", name, "--as", twin)
    try #require(outcome.status == 0, "\(outcome.error)\n\(host.daemonLog.suffix(3000))")
    defer { _ = try? host.sfctl("vm", "destroy", twin) }
    try body(twin)
  }

  /// Writes 4 MiB of chance from that MiB on, and answers what the first 24 MiB are.
  private func scribble(_ name: String, first: Int) throws -> String {
    _ = try sh(
      name, "dd if=/dev/urandom of=/dev/vda bs=64k seek=\(first * 16) count=64 conv=notrunc,fsync 2>/dev/null"
    )
    return try sum(name)
  }

  private func sum(_ name: String) throws -> String {
    try sh(name, "echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/vda bs=1M count=24 2>/dev/null | md5sum")
  }

  /// Its disk is that, without what is in memory.
  private func expect(_ name: String, _ right: String) throws {
    let found = try sum(name)
    #expect(found == right, "\(name)")
  }

  @Test(
    "A checkpoint sends what was written to the disk since the last one, and the standby's is what the VM's was"
  )
  func changes() throws {
    try host.device("dev", disk: "256M", options: ["--no-network"])
    defer { _ = try? host.sfctl("vm", "destroy", "dev") }
    _ = try scribble("dev", first: 2)
    try replicate("dev")
    defer { _ = try? host.sfctl("replica", "rm", "dev") }
    let idle = try checkpoint("dev")
    #expect(idle.sequence == 2 && idle.bytesSent < 1 << 20, "\(idle)")
    // A fork between two checkpoints leaves a layer of its own.
    _ = try scribble("dev", first: 8)
    try host.withFork(clones: 1, options: ["--host", "h1"]) { _ in }
    let right = try scribble("dev", first: 10)
    let written = try checkpoint("dev")
    #expect(written.bytesSent > 6 << 20 && written.bytesSent < 24 << 20, "\(written)")
    _ = try scribble("dev", first: 4)
    try withTwin(of: "dev") { twin in
      try expect(twin, right)
      _ = try scribble(twin, first: 0)
      // The twin has the standby: another is made, of all of the disk.
      let whole = try checkpoint("dev")
      #expect(whole.sequence > 3 && whole.bytesSent > 16 << 20, "\(whole)")
    }
    let now = try sum("dev")
    _ = try checkpoint("dev")
    try withTwin(of: "dev") { twin in try expect(twin, now) }
  }

  @Test("Memory and disk agree to the block, after many checkpoints under a program that writes without rest")
  func sameInstant() throws {
    try host.device("busy", disk: "64M", options: ["--no-network"])
    defer { _ = try? host.sfctl("vm", "destroy", "busy") }
    _ = try sh("busy", "sf-disk /dev/vda 4 /go >/result 2>&1 </dev/null &")
    try replicate("busy", "--every", "0.5")
    defer { _ = try? host.sfctl("replica", "rm", "busy") }
    for _ in 0..<2 {
      let before = try replicas().first { $0.role == "device" }?.sequence ?? 0
      #expect(
        eventually(seconds: 60) {
          (try? replicas().first { $0.role == "standby" }?.sequence ?? 0) ?? 0 > before + 5
        }, "\(host.daemonLog.suffix(3000))")
      try withTwin(of: "busy") { twin in
        let said = try answer(of: twin)
        #expect(said == "wrong 0 on disk 0\n")
      }
    }
    // The layers of all those checkpoints have not piled up at home.
    #expect(
      eventually(seconds: 60) {
        let layers = try? FileManager.default.contentsOfDirectory(atPath: host.state + "/lab/h1/disks/layer")
        return layers?.count ?? .max < 12
      })
    #expect(try answer(of: "busy") == "wrong 0 on disk 0\n")
  }

  /// What the program says when it is told to end.
  private func answer(of name: String) throws -> String {
    _ = try sh(name, "touch /go")
    var said = ""
    #expect(
      eventually(seconds: 60) {
        said = (try? sh(name, "cat /result")) ?? ""
        return said.hasSuffix("\n")
      })
    return said
  }

  @Test("A transfer that is cut in the midst of the disk: the last whole checkpoint stands, then it goes on")
  func cutInTheDisk() throws {
    try host.device("cut", disk: "256M", options: ["--no-network"])
    defer { _ = try? host.sfctl("vm", "destroy", "cut") }
    let old = try scribble("cut", first: 4)
    try replicate("cut")
    defer { _ = try? host.sfctl("replica", "rm", "cut") }
    // Far more on the disk than in memory, and past the page cache.
    _ = try sh(
      "cut",
      "for i in 1 2 3 4 5 6; do dd if=/dev/urandom of=/dev/vda bs=1M seek=$((i * 16)) count=16 conv=fsync 2>/dev/null; echo 3 >/proc/sys/vm/drop_caches; done"
    )
    let new = try scribble("cut", first: 6)
    func incoming() -> UInt64 {
      let directory = host.state + "/lab/h2/replicas/in"
      let files = FileManager.default.enumerator(atPath: directory)?.allObjects as? [String] ?? []
      return files.filter { $0.contains("incoming-") }.map { file in
        var status = stat()
        return stat("\(directory)/\(file)", &status) == 0 ? UInt64(status.st_size) : 0
      }.max() ?? 0
    }
    let checkpoint = try host.start(["checkpoint", "cut", "--json"])
    #expect(eventually(seconds: 60, every: 2_000) { incoming() > 12 << 20 })
    _ = try host.sfctl("lab", "cut", "h2")
    sleep(2)
    let there = incoming()
    #expect(there > 12 << 20, "it was cut too late")
    for pid in host.pids(of: "sfd", on: "h2") { kill(pid, SIGKILL) }
    // On its own, h2 has the last whole one.
    let activated = try host.on("h2", "replica", "activate", "cut", "--as", "early")
    try #require(activated.status == 0, "\(activated.error)\n\(host.daemonLog.suffix(3000))")
    let read = try host.on(
      "h2", "exec", "early", "--", "sh", "-c", "dd if=/dev/vda bs=1M count=24 2>/dev/null | md5sum")
    #expect(read.text == old)
    _ = try host.on("h2", "vm", "destroy", "early")
    _ = try host.sfctl("lab", "mend", "h2")
    _ = try checkpoint.wait(seconds: 120)
    #expect(
      eventually(seconds: 90) { (try? self.checkpoint("cut")) != nil }, "\(host.daemonLog.suffix(3000))")
    try withTwin(of: "cut") { twin in try expect(twin, new) }
  }

  @Test("Daemons that are killed at any moment: no disk is half", arguments: [20, 150, 400, 800])
  func killedDaemons(milliseconds: UInt32) throws {
    try host.device("killed", disk: "128M", options: ["--no-network"])
    try replicate("killed")
    defer { _ = try? host.sfctl("replica", "rm", "killed") }
    for name in ["h1", "h2"] {
      let right = try scribble("killed", first: Int(milliseconds % 16))
      let running = try host.start(["checkpoint", "killed", "--json"])
      usleep(milliseconds * 1000)
      for pid in host.pids(of: "sfd", on: name) { kill(pid, SIGKILL) }
      _ = try running.wait(seconds: 120)
      _ = try host.on(name, "host", "ls")
      #expect(
        eventually(seconds: 60) {
          guard let last = try? checkpoint("killed") else { return false }
          return (try? replicas().map(\.sequence)) == [last.sequence, last.sequence]
        }, "\(name) after \(milliseconds) ms\n\(host.daemonLog.suffix(3000))")
      try withTwin(of: "killed") { twin in try expect(twin, right) }
    }
  }

  @Test(
    "Clones of a standby have its disk, each its own; later checkpoints wait for them, and are then applied")
  func clonesOfAStandby() throws {
    try host.device("stand", disk: "128M", options: ["--no-network"])
    defer { _ = try? host.sfctl("vm", "destroy", "stand") }
    let first = try scribble("stand", first: 4)
    try replicate("stand")
    defer { _ = try? host.sfctl("replica", "rm", "stand") }
    func standby() throws -> ReplicaList.Replica? { try replicas().first { $0.role == "standby" } }
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    for round in 0..<2 {
      let before = try sum("stand")
      #expect(eventually(seconds: 60) { (try? standby()?.sequence) == 1 + 2 * round })
      let forked = try host.on("h2", "fork", "stand", "-n", "2", "--json")
      try #require(forked.status == 0, "\(forked.error)\n\(host.daemonLog.suffix(3000))")
      let fork = try decoder.decode(ForkDocument.self, from: forked.output)
      _ = try scribble("stand", first: 6 + round)
      for _ in 0..<2 { _ = try checkpoint("stand") }
      let waiting = try #require(try standby())
      #expect(waiting.sequence == 1 + 2 * round && waiting.receivedSequence == 3 + 2 * round, "\(waiting)")
      for clone in fork.clones { #expect(try sum(clone.name) == before) }
      #expect(round > 0 || before == first)
      _ = try scribble(fork.clones[0].name, first: 4)
      #expect(try sum(fork.clones[1].name) == before)
      #expect(try host.on("h2", "kill", fork.ticket).status == 0)
      _ = try host.on("h2", "join", fork.ticket)
    }
    #expect(eventually(seconds: 60) { (try? standby()?.sequence) == 5 }, "\(host.daemonLog.suffix(3000))")
    let now = try sum("stand")
    try withTwin(of: "stand") { twin in try expect(twin, now) }
  }

  @Test("A fork to the standby's host: its memory from the standby, its disk from home")
  func warmFork() throws {
    try host.device("warm", disk: "128M", options: ["--no-network"])
    defer { _ = try? host.sfctl("vm", "destroy", "warm") }
    try replicate("warm")
    defer { _ = try? host.sfctl("replica", "rm", "warm") }
    let right = try scribble("warm", first: 4)
    try host.withFork(of: "warm", clones: 1, options: ["--host", "h2"]) { fork in
      try expect(fork.clones[0].name, right)
    }
    _ = try checkpoint("warm")
  }
}

/// The device's host is gone, with the disk that its root file system is on.
@Suite("Standbys of a lost device with a disk", .serialized, .ownLab(hosts: 2))
struct LostDiskTests {
  private let host: TestHost

  init() throws { host = try #require(TestHost.here) }

  @Test(
    "A root file system on a disk goes on at the standby: files are as memory says, and whole; then it is replicated"
  )
  func takesItsPlace() throws {
    try host.device(image: "debian-disk", memory: "192M")
    // The loop's number is in its memory, in a file of memory, and synced to the disk.
    try host.inside(
      "dev", "sh", "-c",
      "(i=0; while :; do i=$((i+1)); echo $i >/run/n; echo $i >/root/n.new; sync /root/n.new; mv /root/n.new /root/n; done) >/dev/null 2>&1 & echo $! >/run/loop"
    )
    let kept = try host.inside(
      "dev", "sh", "-c",
      "dd if=/dev/urandom of=/root/kept bs=1M count=12 2>/dev/null; sync; md5sum /root/kept")
    let first = try host.start(["replicate", "dev", "--to", "h2", "--every", "0.5"]).wait(seconds: 180)
    try #require(first.status == 0, "\(first.error)\n\(host.daemonLog.suffix(3000))")
    #expect(
      eventually(seconds: 60) {
        (try? host.document("replica", "ls", as: ReplicaList.self).replicas[0].sequence > 3) == true
      })
    host.killHost("h1")
    let activated = try host.on("h2", "replica", "activate", "dev", "--json")
    try #require(activated.status == 0, "\(activated.error)\n\(host.daemonLog.suffix(3000))")
    defer { _ = try? host.on("h2", "vm", "destroy", "dev") }
    func sh(_ command: String) throws -> String {
      let outcome = try host.on("h2", "exec", "dev", "--", "sh", "-c", command)
      #expect(outcome.status == 0, "\(outcome.error)")
      return outcome.text
    }
    let numbers = try sh(
      "kill -STOP $(cat /run/loop); echo 3 >/proc/sys/vm/drop_caches; cat /run/n /root/n; cat /root/n.new 2>/dev/null; kill -CONT $(cat /run/loop)"
    ).split(separator: "\n").compactMap { Int($0) }
    // On the disk is the number that is in memory, or the one before with the next on its way.
    #expect(numbers.count >= 2 && numbers[0] > 3 && (0...1).contains(numbers[0] - numbers[1]), "\(numbers)")
    #expect(try sh("md5sum /root/kept") == kept)
    let later = try sh("sleep 1; cat /root/n")
    #expect(Int(later.dropLast()) ?? 0 > numbers[1])
    let checked = try sh(
      "kill $(cat /run/loop); fsfreeze -f /; e2fsck -fn -E no_optimize_extents /dev/vda 2>&1; s=$?; fsfreeze -u /; exit $s"
    )
    #expect(checked.contains("Pass 5"), "\(checked)")
    // h1's daemon comes back with the first of these commands; then both find each other.
    #expect(eventually(seconds: 30) { host.sees("dev", on: "h2") })
    let back = try host.on("h2", "replicate", "dev", "--to", "h1")
    #expect(back.status == 0, "\(back.error)\n\(host.daemonLog.suffix(3000))")
    #expect(try sh("md5sum /root/kept") == kept)
    let twin = try host.on("h1", "replica", "activate", "dev", "--as", "back")
    try #require(twin.status == 0, "\(twin.error)\n\(host.daemonLog.suffix(3000))")
    let there = try host.on(
      "h1", "exec", "back", "--", "sh", "-c", "echo 3 >/proc/sys/vm/drop_caches; md5sum /root/kept")
    #expect(there.text == kept)
    _ = try host.on("h1", "vm", "destroy", "back")
  }
}
