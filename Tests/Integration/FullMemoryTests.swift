import Foundation
import Support
import Testing

/// The tmpfs of guests' RAM and page caches is full: what cannot go on says so, and what it does not need is unharmed.
@Suite("No memory left", .serialized, .ownHost)
struct FullMemoryTests {
  private let host: TestHost

  /// A daemon uses the file system it finds mounted.
  init() throws {
    host = try #require(TestHost.here)
    if !FileManager.default.fileExists(atPath: host.memory) {
      try FileManager.default.createDirectory(atPath: host.memory, withIntermediateDirectories: true)
      let arguments = ["-t", "tmpfs", "-o", "size=300M,huge=advise,mode=0711", "tmpfs", host.memory]
      let mount = try Command("/bin/mount", arguments, scratch: host.directory + "/scratch").wait()
      try #require(mount.status == 0, "\(mount.error)")
    }
    try host.device()
  }

  @Test(
    "No room for a page cache: the fork fails or its clones are lost with the reason; the parent is unharmed")
  func cache() throws {
    try host.inside("dev", "sh", "-c", "head -c 67108864 /dev/urandom >/tmp/data")
    let sum = try host.inside("dev", "sha256sum", "/tmp/data")
    let filler = host.memory + "/filler"
    try fill(filler)
    defer { try? FileManager.default.removeItem(atPath: filler) }

    let outcome = try host.sfctl("fork", "dev", "-n", "2", "--json")
    if outcome.output.isEmpty {
      #expect(outcome.status == 1 || outcome.status == 4)
      #expect(outcome.error.contains("memory") || outcome.error.contains("space"), "\(outcome.error)")
    } else {
      try end(outcome)
    }
    #expect(try host.inside("dev", "sha256sum", "/tmp/data") == sum)

    try FileManager.default.removeItem(atPath: filler)
    try host.withFork(clones: 1) { fork in
      let name = try host.inside(fork.clones[0].name, "hostname")
      #expect(name == fork.clones[0].name + "\n")
    }
  }

  @Test("The cache fills up while clones read: they end and say why, the parent runs on")
  func cacheFillsUp() throws {
    try host.inside("dev", "sh", "-c", "head -c 67108864 /dev/urandom >/tmp/data")
    let sum = try host.inside("dev", "sha256sum", "/tmp/data")
    let fork: ForkDocument = try host.document("fork", "dev", "-n", "2")
    let filler = host.memory + "/filler"
    try fill(filler)
    for clone in fork.clones {
      let outcome = try host.sfctl("exec", clone.name, "--", "sha256sum", "/tmp/data")
      if outcome.status == 0 { #expect(outcome.text == sum) }
    }
    #expect(try host.inside("dev", "sha256sum", "/tmp/data") == sum)
    _ = try host.sfctl("kill", fork.ticket)
    let ends: JoinDocument = try host.document("join", fork.ticket)
    #expect(ends.statuses.allSatisfy { !$0.reason.isEmpty }, "\(ends)")
    #expect(ends.statuses.contains { $0.how == "lost" }, "\(ends)")
    try FileManager.default.removeItem(atPath: filler)
    #expect(try host.inside("dev", "sha256sum", "/tmp/data") == sum)
  }

  /// Leaves 2 MiB.
  private func fill(_ path: String) throws {
    var information = statvfs()
    try #require(statvfs(host.memory, &information) == 0)
    let free = Int(information.f_bavail) * Int(information.f_bsize)
    let file = open(path, O_WRONLY | O_CREAT, 0o600)
    try #require(file >= 0)
    defer { close(file) }
    #expect(posix_fallocate(file, 0, free - 2 << 20) == 0)
  }

  /// A fork that began although memory was short: its clones ran, or are lost and say why.
  private func end(_ outcome: Command.Outcome) throws {
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    let fork = try decoder.decode(ForkDocument.self, from: outcome.output)
    let lost = fork.clones.filter { $0.state == "lost" }
    #expect(outcome.status == (lost.isEmpty ? 0 : 1), "\(outcome.error)")
    #expect(lost.allSatisfy { $0.reason?.contains("memory") ?? false }, "\(lost)")
    #expect(try host.sfctl("kill", fork.ticket).status == 0)
    #expect(try host.sfctl("join", fork.ticket).status == 0)
  }
}
