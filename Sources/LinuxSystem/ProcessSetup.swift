import CLinux
import Glibc
import Synchronization

/// Changes of a process or thread that what it starts later inherits.
public enum ProcessSetup {
  /// The mount namespace that `hide` was called in; nil: it was not called.
  static var outerMounts: OwnedDescriptor? { outer.withLock { $0 } }
  private static let outer = Mutex<OwnedDescriptor?>(nil)

  /// Moves the calling thread into a mount namespace of its own, in which `path` is a file that nobody may open.
  /// Threads and processes that it starts from now on are in there too; threads that it has started before are not.
  /// What is mounted elsewhere later is still seen there; what is mounted there is not seen elsewhere.
  public static func hide(_ path: String) throws(SystemError) {
    let cover = "/run/.snowfork-hidden-\(getpid())"
    // Mode 0, so that also processes of other users see the file as closed to them.
    _ = try OwnedDescriptor.open(cover, O_RDONLY | O_CREAT, mode: 0)
    defer { unlink(cover) }
    let mounts = try OwnedDescriptor.open("/proc/thread-self/ns/mnt", O_RDONLY)
    try systemCall("unshare") { clinux_unshare_mounts() }
    outer.withLock { $0 = $0 ?? mounts }
    try systemCall("mount", subject: "/ as slave") { mount("none", "/", nil, UInt(MS_REC | MS_SLAVE), nil) }
    try systemCall("mount", subject: "\(cover) on \(path)") { mount(cover, path, nil, UInt(MS_BIND), nil) }
  }

  /// How many threads this process has.
  public static func threadCount() throws(SystemError) -> Int {
    var tasks = stat()
    try systemCall("stat", subject: "/proc/self/task") { stat("/proc/self/task", &tasks) }
    // A directory's links: its name, its own `.`, and the `..` of each directory in it.
    return Int(tasks.st_nlink) - 2
  }

  /// From here on, descendants that lose their parent become children of this process, which must wait for them.
  /// With false they become the nearest ancestor's that wants them, or process 1's, as before.
  public static func becomeSubreaper(_ on: Bool = true) throws(SystemError) {
    try systemCall("prctl(PR_SET_CHILD_SUBREAPER)") { clinux_set_subreaper(on ? 1 : 0) }
  }
}
