import Foundation
import Support
import Testing

/// An ext4 file system on a disk that is forked while it is written to. guest/files.py does what is done in guests.
@Suite("File systems on disks", .serialized, .ownHost)
struct FileSystemTests {
  private let host: TestHost

  init() throws { host = try #require(TestHost.here) }

  /// A VM of that name with an ext4 file system at /mnt, and the script in it.
  private func device(_ name: String) throws {
    try host.device(name, image: "debian", memory: "320M", disk: "256M")
    let script = try Data(
      contentsOf: URL(fileURLWithPath: ProjectFiles.root + "/Tests/Integration/guest/files.py"))
    let copied = try host.sfctl("exec", name, "--", "sh", "-c", "cat >/root/files.py", input: script)
    try #require(copied.status == 0, "\(copied.error)")
    try host.inside(name, "python3", "/root/files.py", "make")
  }

  @Test(
    "Clones of a VM whose programs write: files are as memory says; after a replay e2fsck has nothing to repair"
  )
  func forked() throws {
    try device("files")
    defer { _ = try? host.sfctl("vm", "destroy", "files") }
    let outcome = try host.start(["exec", "files", "--", "python3", "/root/files.py", "fork", "2", "4"]).wait(
      seconds: 600)
    let one = ["1 right", "2 right"]
    #expect(
      outcome.lines == one + one + one + one + ["parent right"],
      "\(outcome.text)\(outcome.error)\n\(host.daemonLog.suffix(3000))")
  }

  @Test("The disk at the very fork point, without the memory that belongs to it, needs its journal replayed")
  func diskAlone() throws {
    let before = try layers()
    try device("crash")
    defer { _ = try? host.sfctl("vm", "destroy", "crash") }
    let layer = try #require(Set(try layers()).subtracting(before).first)
    let writer = try host.start(["exec", "crash", "--", "python3", "/root/files.py", "write"])
    try #require(eventually { writer.outputSoFar == "writing\n" })
    #expect(try host.sfctl("snapshot", "create", "crash", "point").status == 0)
    defer { _ = try? host.sfctl("snapshot", "rm", "point") }
    writer.signal(SIGTERM)
    _ = try writer.wait()

    let image = host.directory + "/scratch/fork-point"
    defer { unlink(image) }
    let copied = try run("/usr/bin/qemu-img", "convert", "-U", "-O", "raw", layer, image)
    try #require(copied.status == 0, "\(copied.error)")
    let replayed = try run("/usr/sbin/e2fsck", "-fy", "-E", "no_optimize_extents", image)
    let said = replayed.lines.filter { !$0.contains("*****") && !$0.contains(" files (") }
    #expect(said.contains("\(image): recovering journal"), "\(replayed.text)")
    // The sums of free blocks and inodes are the kernel's to keep while it runs; those of each group are in the journal.
    let ofReplay = [
      "\(image): recovering journal", "Clearing orphaned inode", "Truncating orphaned inode", "Pass ",
      "Free blocks count wrong (",
      "Free inodes count wrong (", "Fix? yes",
    ]
    #expect(said.allSatisfy { line in ofReplay.contains { line.hasPrefix($0) } }, "\(replayed.text)")
    let again = try run("/usr/sbin/e2fsck", "-fn", image)
    #expect(again.status == 0, "\(again.text)")
  }

  private func run(_ program: String, _ arguments: String...) throws -> Command.Outcome {
    try Command(program, arguments, scratch: host.directory + "/scratch").wait()
  }

  private func layers() throws -> [String] {
    let directory = host.state + "/disks/layer"
    let names = (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
    return names.map { directory + "/" + $0 }
  }
}
