import CLinux
import Glibc

/// The tmpfs that holds guests' RAM and snapshots' page caches: userfaultfd does not register files elsewhere.
public enum GuestMemoryMount {
  /// Whether a file system of its own is mounted there.
  public static func isMounted(_ path: String) -> Bool {
    var own = stat()
    var above = stat()
    guard stat(path, &own) == 0, stat(path + "/..", &above) == 0 else { return false }
    return own.st_dev != above.st_dev
  }

  /// A tmpfs with huge pages on advice, as large as nine tenths of the machine's memory.
  public static func mount(_ path: String) throws(SystemError) {
    try systemCall("mount(tmpfs)", subject: path) {
      clinux_mount_tmpfs(path, "huge=advise,size=90%,mode=0711")
    }
  }

  /// Unmounts it and removes its directory, in the namespace that `mounts` stands for (an open /proc/PID/ns/mnt).
  public static func unmount(_ path: String, in mounts: OwnedDescriptor) throws(SystemError) {
    let outcome = Outcome()
    try NamedThread("unmount") {
      outcome.result = Result { () throws(SystemError) in
        try systemCall("umount2", subject: path) { clinux_unmount_in(mounts.raw, path) }
      }
    }.join()
    _ = try outcome.result?.get()
  }

  /// Written by the thread before it ends, read after it was joined.
  private final class Outcome: @unchecked Sendable { var result: Result<CInt, SystemError>? }
}
