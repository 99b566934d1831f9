import CGuest
import Glibc

/// A root file system on a disk: `root=/dev/vda` on the kernel's command line, of an image whose initrd holds no more
/// than the agent and the modules that the disk needs (images/disk.sh).
///
/// The agent goes on as process 1 and is not started anew: it is in memory as a whole, and needs the disk for nothing.
enum RootDisk {
  private static let place = "/root-disk"
  private static let secondsForDevice = 10

  /// The device that the kernel's command line names; nil: the root file system stays as it is.
  static var device: String? {
    guard isInMemory else { return nil }
    let words = readText("/proc/cmdline")?.split(separator: " ") ?? []
    return words.last { $0.hasPrefix("root=") }.map { String($0.dropFirst("root=".count)) }
  }

  /// Its file system is `/` when this returns, and what the initrd held is gone from memory. Modules have been loaded,
  /// and the kernel's own file systems mounted.
  static func enter(_ device: String) throws(SystemError) {
    try wait(for: device)
    mkdir(place, 0o755)
    // A file that is only read is not to make every clone write to its disk.
    guard mount(device, place, "ext4", UInt(MS_NOATIME), "") == 0 else {
      throw SystemError("mount \(device) as the root file system")
    }
    // Files that programs leave in /tmp may be large: they go to the disk.
    umount("/tmp")
    for path in ["/dev", "/proc", "/sys", "/run"] {
      mkdir(place + path, 0o755)
      guard mount(path, place + path, nil, UInt(MS_MOVE), nil) == 0 else { throw SystemError("move \(path)") }
    }
    guard chdir(place) == 0 else { throw SystemError("chdir \(place)") }
    removeAll(in: "/", of: try status(of: "/").st_dev)
    guard mount(".", "/", nil, UInt(MS_MOVE), nil) == 0, chroot(".") == 0, chdir("/") == 0 else {
      throw SystemError("make \(device) the root file system")
    }
  }

  /// What the kernel unpacked the initrd into, and what may be removed: RAMFS_MAGIC or TMPFS_MAGIC (statfs(2)).
  private static var isInMemory: Bool {
    var root = statfs()
    guard statfs("/", &root) == 0 else { return false }
    return root.f_type == 0x8584_58F6 || root.f_type == 0x0102_1994
  }

  /// Its driver may still be looking at it.
  private static func wait(for device: String) throws(SystemError) {
    for _ in 0..<secondsForDevice * 100 {
      if access(device, F_OK) == 0 { return }
      usleep(10_000)
    }
    throw SystemError("the root disk \(device)", ENOENT)
  }

  private static func status(of path: String) throws(SystemError) -> stat {
    var status = stat()
    guard lstat(path, &status) == 0 else { throw SystemError("lstat \(path)") }
    return status
  }

  /// What is on that file system and nothing else; it is memory, which clones would carry along.
  private static func removeAll(in directory: String, of fileSystem: dev_t) {
    for name in namesIn(directory) {
      let path = directory == "/" ? "/\(name)" : "\(directory)/\(name)"
      guard let status = try? status(of: path), status.st_dev == fileSystem else { continue }
      if status.st_mode & S_IFMT == S_IFDIR {
        removeAll(in: path, of: fileSystem)
        rmdir(path)
      } else {
        unlink(path)
      }
    }
  }
}
