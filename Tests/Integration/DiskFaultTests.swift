import Foundation
import Support
import Testing

/// What a guest and the operator are told when a disk fails.
@Suite("Failing disks", .serialized, .ownHost)
struct DiskFaultTests {
  private let host: TestHost

  init() throws {
    host = try #require(TestHost.here)
    try host.device(disk: "256M")
  }

  @Test("No storage daemon comes back: reads fail, the operator is told, and with the next disks are right")
  func exportGone() throws {
    try host.inside("dev", "sh", "-c", DiskTests.scribble)
    let right = try host.inside("dev", "sh", "-c", DiskTests.sum)
    try host.withFork(clones: 2) { _ in
      // The next one can not listen where a directory is.
      let monitor = host.run + "/disk/monitor.sock"
      try #require(unlink(monitor) == 0 && mkdir(monitor, 0o700) == 0)
      kill(try #require(host.pid(of: "qemu-storage-da")), SIGKILL)
      let outcome = try host.sfctl("exec", "dev.1", "--", "sh", "-c", Self.read)
      #expect(outcome.status != 0 && outcome.error.contains("Input/output error"), "\(outcome.error)")
      #expect(try eventually { try host.vm("dev.1")?.reason == "disk 1: input/output error" })
      #expect(host.daemonLog.contains("dev.1 got an I/O error: disk 1 could not be read: input/output error"))
      for name in ["dev.2", "dev"] { #expect(try host.vm(name)?.reason == "") }

      try #require(rmdir(monitor) == 0)
      for name in ["dev.2", "dev.1"] {
        #expect(try eventually { try host.sfctl("exec", name, "--", "sh", "-c", Self.read).status == 0 })
        #expect(try host.inside(name, "sh", "-c", DiskTests.sum) == right)
      }
    }
  }

  private static let read = "dd if=/dev/vda of=/dev/null bs=1M count=8"
}

/// A host whose file system for disks is small.
@Suite("Full disks", .serialized, .ownHost)
struct FullDiskTests {
  private let host: TestHost

  init() throws { host = try #require(TestHost.here) }

  /// Runs the body on a host with 32 MiB for disks.
  private func withLittleRoom(_ body: (_ directory: String) throws -> Void) throws {
    let directory = host.state + "/disks"
    // One that looked after the test before has the directory itself.
    _ = try host.sfctl("daemon", "stop")
    try #require(eventually { host.pid(of: "sfd") == nil })
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    try #require(mount("none", directory, "tmpfs", 0, "size=32m,mode=711") == 0)
    defer {
      _ = try? host.sfctl("daemon", "stop", "--destroy-vms")
      #expect(eventually { umount(directory) == 0 })
    }
    try body(directory)
  }

  private static func files(_ directory: String) throws -> Set<String> {
    Set(try FileManager.default.contentsOfDirectory(atPath: directory + "/layer"))
  }

  /// Takes what is left of the file system.
  private func fill(_ directory: String) throws -> String {
    let path = directory + "/filling"
    let filled = try Command(
      "/bin/dd", ["if=/dev/zero", "of=" + path, "bs=4k"], scratch: host.directory + "/scratch"
    ).wait()
    try #require(filled.status != 0 && filled.error.contains("No space left"), "\(filled.error)")
    return path
  }

  @Test("A host's disk is full: guest and operator are told; what was written before is right everywhere")
  func full() throws {
    try withLittleRoom { directory in
      try host.device(disk: "256M")
      try host.inside("dev", "sh", "-c", DiskTests.scribble)
      let right = try host.inside("dev", "sh", "-c", DiskTests.sum)
      try host.withFork(clones: 2) { _ in
        let write = "dd if=/dev/urandom of=/dev/vda bs=1M seek=64 count=64 conv=notrunc,fsync"
        let outcome = try host.sfctl("exec", "dev.1", "--", "sh", "-c", write)
        #expect(outcome.status != 0 && outcome.error.contains("Input/output error"), "\(outcome.error)")
        #expect(try eventually { try host.vm("dev.1")?.reason == "disk 1: no space left on device" })
        #expect(
          host.daemonLog.contains(
            "dev.1 got an I/O error: disk 1 could not be written: no space left on device. "
              + "Free some of \(directory)."))
        for name in ["dev.2", "dev"] { #expect(try host.vm(name)?.reason == "") }
        for name in ["dev.1", "dev.2", "dev"] {
          #expect(try host.inside(name, "sh", "-c", DiskTests.sum) == right)
        }
        // The one who is told of it is told by another daemon too.
        try host.killDaemon()
        #expect(try host.vm("dev.1")?.reason == "disk 1: no space left on device")
      }
    }
  }

  @Test("No room for another file: starts and forks are refused, nothing of them is left, and VMs run on")
  func noRoom() throws {
    try withLittleRoom { directory in
      try host.device(disk: "256M")
      try host.inside("dev", "sh", "-c", DiskTests.scribble)
      let right = try host.inside("dev", "sh", "-c", DiskTests.sum)
      let files = try Self.files(directory)
      let filling = try fill(directory)
      let sentence = "there is no room for its disk in \(directory) of host "
      for command in [["fork", "dev", "-n", "2"], ["vm", "start", "other", "--disk", "256M"]] {
        let outcome = try host.start(command).wait()
        #expect(outcome.status == 4 && outcome.error.contains(sentence), "\(outcome.error)")
        #expect(try Self.files(directory) == files)
        #expect(try host.vms().map(\.name) == ["dev"])
      }
      #expect(try host.inside("dev", "sh", "-c", DiskTests.sum) == right)

      unlink(filling)
      try host.withFork(clones: 2) { _ in
        let found = try host.inside("dev.2", "sh", "-c", DiskTests.sum)
        #expect(found == right)
      }
    }
  }
}
