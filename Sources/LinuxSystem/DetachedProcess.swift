import CLinux
import Glibc

/// A program that outlives its starter: in a session of its own, its output appended to a log.
public enum DetachedProcess {
  /// The pid. A program that can not be run is seen by `hasExited`.
  public static func spawn(_ program: String, arguments: [String], logPath: String) throws(SystemError) -> pid_t {
    var pointers: [UnsafeMutablePointer<CChar>?] = ([program] + arguments).map { strdup($0) }
    pointers.append(nil)
    defer { for pointer in pointers { free(pointer) } }
    return try systemCall("fork", subject: program) {
      pointers.withUnsafeBufferPointer { clinux_spawn_detached(program, $0.baseAddress!, logPath) }
    }
  }

  /// Reaps a child of ours if it has ended. False of one that runs; true of one that is no child and does not exist.
  public static func hasExited(_ pid: pid_t) -> Bool {
    var status: CInt = 0
    let result = waitpid(pid, &status, WNOHANG)
    if result == pid { return true }
    return result == -1 && kill(pid, 0) == -1 && errno == ESRCH
  }
}

/// What a daemon does once, at its start.
public enum DaemonProcess {
  /// Orphans of our children become ours, so that an ended QEMU is reaped at once.
  public static func becomeSubreaper() throws(SystemError) {
    try systemCall("prctl(PR_SET_CHILD_SUBREAPER)") { clinux_become_subreaper() }
  }

  /// Puts `source` in the place of `target` for this process and its children only. Before any thread is started.
  public static func hide(_ target: String, behind source: String) throws(SystemError) {
    try systemCall("unshare(CLONE_NEWNS)") { clinux_unshare_mounts() }
    try systemCall("mount(MS_BIND)", subject: target) { clinux_bind_mount(source, target) }
  }

  public static func unmount(_ path: String) throws(SystemError) {
    try systemCall("umount2", subject: path) { clinux_unmount(path) }
  }
}
