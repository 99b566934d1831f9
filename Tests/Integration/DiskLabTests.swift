import Foundation
import Support
import Testing

/// Disks of clones on other hosts: layers are fetched by NBD under the cluster's TLS, once a host.
@Suite("Disks over hosts", .serialized, .ownLab(hosts: 3))
struct DiskLabTests {
  private let host: TestHost

  init() throws {
    host = try #require(TestHost.here)
    try host.device(disk: "256M")
  }

  @Test(
    "6 clones on 3 hosts find their disk as it was at the fork, while the parent writes", arguments: [0, 2])
  func underLoad(lossPercent: Int) throws {
    _ = try host.sfctl("lab", "loss", "\(lossPercent)")
    defer { _ = try? host.sfctl("lab", "loss", "0") }
    let outcome = try host.start(["exec", "dev", "--", "sf-disk", "/dev/vda", "4", "6", "2"]).wait(
      seconds: 300)
    let one = (1...6).map { "\($0) exited 0 wrong 0 on disk 0 own 0" }
    #expect(
      outcome.lines == one + one + ["parent wrong 0"], "\(outcome.error)\n\(host.daemonLog.suffix(3000))")
  }

  @Test("A clone of a clone on another host reads layers of both; each host fetches each once")
  func tree() throws {
    try host.device("tree", disk: "256M")
    defer { _ = try? host.sfctl("vm", "destroy", "tree") }
    let parent = try scribble("tree")
    let fork: ForkDocument = try host.document("fork", "tree", "-n", "1", "--host", "h2")
    defer {
      _ = try? host.sfctl("kill", fork.ticket)
      _ = try? host.sfctl("join", fork.ticket)
    }
    #expect(try sum("tree.1") == parent)
    let child = try scribble("tree.1", first: 16)
    let second = try host.on("h2", "fork", "tree.1", "-n", "3", "--json")
    #expect(second.status == 0, "\(second.error)")
    for name in ["tree.1.1", "tree.1.2", "tree.1.3"] {
      let found = try sum(name)
      #expect(found == child)
    }
    #expect(try sum("tree") == parent)
    // h3 has the 4 MiB that each has written, and what describes them.
    let fetched = try host.on("h3", "stats", "tree.1.3", "--json")
    let disk = try Self.decoder.decode(DiskOnly.self, from: fetched.output).disk
    #expect(disk.fetchedBytes > 7 << 20 && disk.fetchedBytes < 14 << 20, "\(disk)")
    #expect(try host.on("h2", "kill", "tree.1.1").status == 0)
    for name in ["tree.1.2", "tree.1.3"] { #expect(try host.on("h2", "kill", name).status == 0) }
  }

  @Test("nbdkit and a storage daemon are killed while clones read: they read on, and what is right")
  func killed() throws {
    let right = try scribble("dev")
    try host.withFork(clones: 3) { fork in
      for pid in host.pids(of: "nbdkit", on: "h1") { kill(pid, SIGKILL) }
      for pid in host.pids(of: "qemu-storage-da", on: "h2") { kill(pid, SIGKILL) }
      for clone in fork.clones {
        let found = try sum(clone.name)
        #expect(found == right)
      }
    }
  }

  @Test("A kept snapshot is cloned on another host, also by the daemons after")
  func kept() throws {
    let right = try scribble("dev")
    #expect(try host.sfctl("snapshot", "create", "dev", "warm").status == 0)
    defer { _ = try? host.sfctl("snapshot", "rm", "warm") }
    _ = try scribble("dev")
    for round in 0..<2 {
      let clones: ForkDocument = try host.document("clone", "warm", "-n", "2", "--host", "h2")
      for clone in clones.clones {
        let found = try sum(clone.name)
        #expect(found == right, "\(round)")
      }
      _ = try host.sfctl("kill", clones.ticket)
      _ = try host.sfctl("join", clones.ticket)
      if round == 0 {
        for name in ["h1", "h2"] { for pid in host.pids(of: "sfd", on: name) { kill(pid, SIGKILL) } }
        #expect(try host.on("h2", "ps").status == 0)
      }
    }
  }

  @Test("The origin's disks are heard of no more: a clone that was pushed all has its disk")
  func pushed() throws {
    let right = try scribble("dev")
    let fork: ForkDocument = try host.document("fork", "dev", "-n", "1", "--host", "h2", "--push")
    #expect(
      eventually(seconds: 60) {
        (try? host.on("h2", "stats", fork.snapshot, "--json").text.contains("\"whole\":true")) == true
      })
    var fetched = 0
    #expect(
      eventually(seconds: 60, every: 1_000_000) {
        guard let stats = try? host.on("h2", "stats", fork.snapshot, "--json"),
          let disk = try? Self.decoder.decode(DiskOnly.self, from: stats.output).disk
        else { return false }
        defer { fetched = disk.fetchedBytes }
        return disk.fetchedBytes > 4 << 20 && disk.fetchedBytes == fetched
      })
    for pid in host.pids(of: "nbdkit", on: "h1") { kill(pid, SIGSTOP) }
    defer { for pid in host.pids(of: "nbdkit", on: "h1") { kill(pid, SIGCONT) } }
    #expect(try sum("dev.1") == right)
    _ = try host.sfctl("kill", fork.ticket)
    _ = try host.sfctl("join", fork.ticket)
  }

  private static let decoder: JSONDecoder = {
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    return decoder
  }()

  private struct DiskOnly: Decodable {
    struct Disk: Decodable {
      var layers: Int
      var bytes: Int
      var fetchedBytes: Int
    }
    var disk: Disk
  }

  /// Writes 4 MiB of chance from that MiB on, and answers what the first 24 MiB are.
  private func scribble(_ name: String, first: Int = 8) throws -> String {
    try host.inside(
      name, "sh", "-c",
      "dd if=/dev/urandom of=/dev/vda bs=64k seek=\(first * 16) count=64 conv=notrunc,fsync 2>/dev/null")
    return try sum(name)
  }

  private func sum(_ name: String) throws -> String {
    try host.inside(
      name, "sh", "-c", "echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/vda bs=1M count=24 2>/dev/null | md5sum"
    )
  }
}
