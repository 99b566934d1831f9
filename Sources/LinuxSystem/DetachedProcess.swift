import CLinux
import Glibc

/// A program that outlives its starter: in a session of its own, its output appended to a log.
public enum DetachedProcess {
  /// The pid. A program that can not be run is seen by `hasExited`.
  public static func spawn(_ program: String, arguments: [String], logPath: String) throws(SystemError)
    -> pid_t
  {
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
