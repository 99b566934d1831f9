import Foundation
import Support
import Testing

/// A VM whose root file system is on a disk that came with its image.
@Suite("Root file systems on disks", .serialized, .ownHost)
struct RootDiskTests {
  private let host: TestHost

  init() throws { host = try #require(TestHost.here) }

  private func sh(_ vm: String, _ command: String) throws -> String {
    try host.inside(vm, "sh", "-c", command)
  }

  @Test("It boots from the disk, with the initrd gone; the image's file stays as it is")
  func boots() throws {
    let image = try ProjectFiles.image("debian-disk") + "/disk.qcow2"
    let before = try Data(contentsOf: URL(fileURLWithPath: image))
    // Less than the userland alone takes in RAM.
    try host.device(image: "debian-disk", memory: "128M")
    #expect(try sh("dev", "grep ' / ' /proc/mounts").hasPrefix("/dev/vda / ext4 rw,"))
    #expect(try sh("dev", "cat /proc/1/comm") == "init\n")
    #expect(try sh("dev", "ls -d /init /root-disk 2>/dev/null; true") == "")
    #expect(try sh("dev", "python3 -c 'import snowflock; print(snowflock.vmid())'") == "0\n")
    _ = try sh("dev", "dd if=/dev/urandom of=/root/much bs=1M count=64 2>/dev/null; sync")
    #expect(try Data(contentsOf: URL(fileURLWithPath: image)) == before)
  }

  @Test("Clones read and write their root file systems on; the parent's is untouched; e2fsck finds nothing")
  func forked() throws {
    try host.device(image: "debian-disk", memory: "128M")
    // Synced and not synced.
    _ = try sh("dev", "echo before >/root/synced; sync; echo before >/root/fresh; rm -f /root/own /tmp/own")
    try host.withFork(clones: 2) { fork in
      for clone in fork.clones {
        let found = try sh(clone.name, "cat /root/synced /root/fresh; hostname")
        #expect(found == "before\nbefore\n\(clone.name)\n")
        _ = try sh(clone.name, "echo \(clone.name) | tee /root/own >/tmp/own; echo after >/root/synced; sync")
      }
      _ = try sh("dev", "echo parent >/root/fresh; sync")
      let read = "echo 3 >/proc/sys/vm/drop_caches; cd /root; cat synced fresh; cat own /tmp/own 2>/dev/null"
      for clone in fork.clones {
        #expect(try sh(clone.name, read) == "after\nbefore\n\(clone.name)\n\(clone.name)\n")
      }
      #expect(try sh("dev", read + "; true") == "before\nparent\n")
      // A frozen file system has nothing left to write, and its journal is empty.
      for name in ["dev"] + fork.clones.map(\.name) {
        let found = try sh(
          name,
          "fsfreeze -f /; e2fsck -fn -E no_optimize_extents /dev/vda 2>&1; s=$?; fsfreeze -u /; exit $s")
        #expect(found.contains("Pass 5"), "\(found)")
      }
    }
  }

  @Test("A further disk comes after it; the image may be made anew while VMs of it live")
  func madeAnew() throws {
    let directory = host.directory + "/image"
    try FileManager.default.copyItem(atPath: try ProjectFiles.image("debian-disk"), toPath: directory)
    try host.device("old", image: directory, memory: "128M", disk: "64M")
    defer { _ = try? host.sfctl("vm", "destroy", "old") }
    #expect(try sh("old", "cat /sys/block/vdb/size") == "131072\n")
    let sum = "echo 3 >/proc/sys/vm/drop_caches; cat /usr/bin/* /usr/sbin/* 2>/dev/null | md5sum"
    let right = try sh("old", sum)
    // As images/build does it, with a file that is no file system.
    try FileManager.default.removeItem(atPath: directory + "/disk.qcow2")
    try Data(repeating: 7, count: 1 << 20).write(to: URL(fileURLWithPath: directory + "/disk.qcow2"))
    kill(try #require(host.pid(of: "qemu-storage-da")), SIGKILL)
    #expect(try sh("old", sum) == right)
  }
}
