import Foundation
import Support
import Testing

/// Disks of clones: what the guest's memory says was written is what its disk has, at every fork.
@Suite("Disks", .serialized, .ownHost)
struct DiskTests {
  private let host: TestHost

  init() throws {
    host = try #require(TestHost.here)
    try host.device(disk: "256M")
  }

  private func expectRight(_ outcome: Command.Outcome, clones: Int, forks: Int, _ comment: String = "") {
    let one = (1...clones).map { "\($0) exited 0 wrong 0 on disk 0 own 0" }
    let all = (0..<forks).flatMap { _ in one } + ["parent wrong 0"]
    #expect(outcome.lines == all, "\(comment)\(outcome.error)\n\(host.daemonLog.suffix(3000))")
  }

  private func right(_ vm: String = "dev", mebibytes: Int, clones: Int, forks: Int) throws {
    let command = "sf-disk /dev/vda \(mebibytes) \(clones) \(forks)"
    let outcome = try host.start(["exec", vm, "--"] + command.split(separator: " ").map(String.init)).wait(
      seconds: 600)
    expectRight(outcome, clones: clones, forks: forks)
  }

  @Test("100 forks while a program writes: each clone has what was written, and layers do not pile up")
  func underLoad() throws {
    try right(mebibytes: 2, clones: 1, forks: 100)
    #expect(eventually(seconds: 30) { (try? layers().count) == 2 }, "the one that is written and one below")
  }

  @Test("A clone's clones have its disk; all are gone with it")
  func generations() throws {
    try host.withFork(clones: 2) { fork in
      try right("dev.1", mebibytes: 4, clones: 2, forks: 2)
      #expect(try host.inside("dev.2", "sh", "-c", Self.sum) == host.inside("dev", "sh", "-c", Self.sum))
    }
    #expect(eventually(seconds: 30) { (try? layers().count) == 2 })
  }

  @Test(
    "A kept snapshot's disk is as it was, however often it is cloned and whatever the parent writes since")
  func keptSnapshot() throws {
    try host.inside("dev", "sh", "-c", Self.scribble)
    let then = try host.inside("dev", "sh", "-c", Self.sum)
    #expect(try host.sfctl("snapshot", "create", "dev", "warm").status == 0)
    try host.inside("dev", "sh", "-c", Self.scribble)
    #expect(try host.inside("dev", "sh", "-c", Self.sum) != then)
    for _ in 0..<2 {
      let fork: ForkDocument = try host.document("clone", "warm", "-n", "2")
      for clone in fork.clones {
        #expect(try host.inside(clone.name, "sh", "-c", Self.sum) == then)
        try host.inside(clone.name, "sh", "-c", Self.scribble)
      }
      _ = try host.sfctl("kill", fork.ticket)
      _ = try host.sfctl("join", fork.ticket)
    }
    #expect(try host.sfctl("snapshot", "rm", "warm").status == 0)
  }

  @Test("The storage daemon is killed while clones read: they wait for the next, and read what is right")
  func storageDaemonKilled() throws {
    try host.inside("dev", "sh", "-c", Self.scribble)
    let right = try host.inside("dev", "sh", "-c", Self.sum)
    try host.withFork(clones: 2) { _ in
      for name in ["dev.1", "dev.2", "dev.1"] {
        let pid = try #require(host.pid(of: "qemu-storage-da"))
        kill(pid, SIGKILL)
        #expect(try host.inside(name, "sh", "-c", Self.sum) == right)
      }
    }
  }

  @Test(
    "The daemon is killed at any moment of a fork: the next one forks, and disks are right",
    arguments: [20, 60, 150])
  func daemonKilled(milliseconds: UInt32) throws {
    try host.inside("dev", "sh", "-c", Self.scribble)
    let right = try host.inside("dev", "sh", "-c", Self.sum)
    let fork = try host.start(["fork", "dev", "-n", "2"])
    #expect(eventually { (try? host.tickets().isEmpty) == false })
    usleep(milliseconds * 1000)
    try host.killDaemon()
    _ = try fork.wait()
    for ticket in try host.tickets() {
      _ = try host.sfctl("kill", ticket)
      _ = try host.sfctl("join", ticket)
    }
    #expect(try host.inside("dev", "sh", "-c", Self.sum) == right)
    try host.withFork(clones: 2) { fork in
      for clone in fork.clones {
        let found = try host.inside(clone.name, "sh", "-c", Self.sum)
        #expect(found == right)
      }
    }
    try self.right(mebibytes: 4, clones: 2, forks: 2)
  }

  @Test("A file that a disk begins as is never written; each VM of it has its own")
  func fromFile() throws {
    let path = host.directory + "/data.raw"
    try Data(repeating: 7, count: 8 << 20).write(to: URL(fileURLWithPath: path))
    try host.device("other", disk: path)
    defer { _ = try? host.sfctl("vm", "destroy", "other") }
    let first = "dd if=/dev/vda bs=1M count=1 2>/dev/null | hexdump -e '1/1 \"%d\"' | head -1"
    #expect(try host.inside("other", "sh", "-c", first) == "7*\n")
    try host.withFork(of: "other", clones: 2) { fork in
      for clone in fork.clones {
        try host.inside(
          clone.name, "sh", "-c", "dd if=/dev/zero of=/dev/vda bs=64k count=1 conv=notrunc,fsync 2>/dev/null")
      }
      #expect(try host.inside("other", "sh", "-c", first) == "7*\n")
    }
    #expect(FileManager.default.contents(atPath: path) == Data(repeating: 7, count: 8 << 20))
  }

  @Test(
    "Refused: no disk, and nothing is left",
    arguments: [
      ("/nowhere/disk.qcow2", 1, "/nowhere/disk.qcow2"), ("/etc", 1, "/etc"), ("", 2, "--disk"),
    ])
  func refused(disk: String, status: Int32, word: String) throws {
    let outcome = try host.sfctl("vm", "start", "refused", "--disk", disk)
    #expect(outcome.status == status && outcome.error.contains(word), "\(outcome.error)")
    #expect(try host.vm("refused") == nil)
  }

  static let scribble = "dd if=/dev/urandom of=/dev/vda bs=64k count=64 conv=notrunc,fsync 2>/dev/null"
  static let sum = "echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/vda bs=1M count=8 2>/dev/null | md5sum"

  private func layers() throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: host.state + "/disks/layer")
  }
}
