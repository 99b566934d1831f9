import CLinux
import Glibc

/// Changes of the whole process, made once at its start.
public enum ProcessSetup {
  /// Gives the process a mount namespace of its own, in which `path` is a file that nobody may open.
  /// What is mounted elsewhere later is still seen here; nothing done here is seen elsewhere.
  ///
  /// Call it in `main` before there is a second thread: other threads would stay in the old namespace, so
  /// with any the call is refused (EINVAL).
  public static func hide(_ path: String) throws(SystemError) {
    var tasks = stat()
    try systemCall("stat", subject: "/proc/self/task") { stat("/proc/self/task", &tasks) }
    // A directory's links: itself, its parent's entry, and one for each directory in it.
    guard tasks.st_nlink == 3 else { throw SystemError("unshare", subject: "one of several threads", errno: EINVAL) }
    let cover = "/run/.snowfork-hidden-\(getpid())"
    // Mode 0, so that also processes of other users see the file as closed to them.
    _ = try OwnedDescriptor.open(cover, O_RDONLY | O_CREAT, mode: 0)
    defer { unlink(cover) }
    try systemCall("unshare") { clinux_unshare_mounts() }
    try systemCall("mount", subject: "/ as slave") { mount("none", "/", nil, UInt(MS_REC | MS_SLAVE), nil) }
    try systemCall("mount", subject: "\(cover) on \(path)") { mount(cover, path, nil, UInt(MS_BIND), nil) }
  }

  /// From here on, descendants that lose their parent become children of this process, which must wait for them.
  public static func becomeSubreaper() throws(SystemError) {
    try systemCall("prctl(PR_SET_CHILD_SUBREAPER)") { clinux_become_subreaper() }
  }
}
