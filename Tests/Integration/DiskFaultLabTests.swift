import Foundation
import Support
import Testing

/// A clone on a host that has no room to keep what it reads of its disk.
@Suite("Failing disks over hosts", .serialized, .ownLab(hosts: 2))
struct DiskFaultLabTests {
  private let host: TestHost

  init() throws { host = try #require(TestHost.here) }

  @Test("What a clone reads finds no room on its host: it is read all the same, and kept when there is room")
  func noRoomForCache() throws {
    // h2 has room for a few MiB of what h1 has.
    let directory = host.state + "/lab/h2/disks"
    _ = try host.on("h2", "daemon", "stop")
    try #require(eventually { host.pids(of: "sfd", on: "h2").isEmpty })
    try #require(mount("none", directory, "tmpfs", 0, "size=6m,mode=711") == 0)
    defer {
      _ = try? host.on("h2", "daemon", "stop", "--destroy-vms")
      #expect(eventually { umount(directory) == 0 })
    }
    try #require(try host.on("h2", "ps").status == 0)

    try host.device(disk: "256M")
    try host.inside(
      "dev", "sh", "-c", "dd if=/dev/urandom of=/dev/vda bs=64k count=256 conv=notrunc,fsync 2>/dev/null")
    let sum = "dd if=/dev/vda bs=1M count=16 2>/dev/null | md5sum"
    let right = try host.inside("dev", "sh", "-c", sum)
    #expect(eventually { (try? host.on("h1", "host", "ls").text.contains("down")) == false })
    let fork: ForkDocument = try host.document("fork", "dev", "-n", "1", "--host", "h2")
    defer {
      _ = try? host.sfctl("kill", fork.ticket)
      _ = try? host.sfctl("join", fork.ticket)
    }
    #expect(try host.inside("dev.1", "sh", "-c", sum) == right)
    #expect(host.daemonLog.contains("there is no room in \(directory): what clones read"))
    #expect(try host.vm("dev.1")?.reason == "")
    // What it writes itself has no room either.
    let write = "dd if=/dev/urandom of=/dev/vda bs=1M seek=64 count=8 conv=notrunc,fsync"
    let outcome = try host.sfctl("exec", "dev.1", "--", "sh", "-c", write)
    #expect(outcome.status != 0 && outcome.error.contains("Input/output error"), "\(outcome.error)")
    #expect(try eventually { try host.vm("dev.1")?.reason == "disk 1: no space left on device" })
    let again = "echo 3 >/proc/sys/vm/drop_caches; " + sum
    #expect(try host.inside("dev.1", "sh", "-c", again) == right)

    try #require(mount("none", directory, "tmpfs", UInt(MS_REMOUNT), "size=64m,mode=711") == 0)
    #expect(eventually { host.daemonLog.contains("there is room in \(directory) again") })
    #expect(try host.inside("dev.1", "sh", "-c", again) == right)
    let cache = try FileManager.default.contentsOfDirectory(atPath: directory + "/cache")
    let kept = try #require(cache.first.map { directory + "/cache/" + $0 })
    let attributes = try FileManager.default.attributesOfItem(atPath: kept)
    #expect((attributes[.size] as? Int ?? 0) > 16 << 20)
    #expect(try host.inside("dev", "sh", "-c", sum) == right)
    #expect(try host.vm("dev")?.reason == "")
  }
}
