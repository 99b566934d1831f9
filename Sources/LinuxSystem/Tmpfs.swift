import CLinux
import Glibc

/// A tmpfs for guest RAM and page caches.
public enum Tmpfs {
  /// Mounts one at `path`, an existing directory, with huge pages for mappings that ask for them: RAM then is mapped by
  /// 2 MiB, page caches by 4 KiB. `bytesMax` nil: the kernel's default, half of the memory.
  public static func mount(at path: String, bytesMax: UInt64? = nil) throws(SystemError) {
    let size = bytesMax.map { ",size=\($0)" } ?? ""
    try systemCall("mount", subject: path) { clinux_mount_tmpfs(path, "mode=711,huge=advise\(size)") }
  }

  /// Takes it away, at once for new users, at the end of their use for old ones.
  public static func unmount(_ path: String) throws(SystemError) {
    try systemCall("umount2", subject: path) { umount2(path, CInt(MNT_DETACH)) }
  }

  /// Whether `path` lies on one.
  public static func contains(_ path: String) throws(SystemError) -> Bool {
    MemoryFile(try OwnedDescriptor.open(path, O_RDONLY)).liesOnTmpfs
  }
}
