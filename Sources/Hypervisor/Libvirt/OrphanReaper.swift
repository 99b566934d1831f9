import Glibc
import LinuxSystem

/// Waits for QEMU processes that have ended.
///
/// libvirt starts QEMU as a daemon and, when ending a machine, waits until the process is gone from the process
/// table: up to seconds where process 1 is slow to collect it. So this process becomes the parent of its orphans and
/// collects them: QEMUs at once, others when nobody has waited for them within a second. A child that this
/// process itself waits for is left to whoever does.
enum OrphanReaper {
  /// Starts the thread at the first use.
  static func start() throws(HypervisorError) {
    if let failure = started { throw failure }
  }

  private static let started: HypervisorError? = {
    do {
      try ProcessSetup.becomeSubreaper()
      try NamedThread("orphan-reaper", run).detach()
      return nil
    } catch {
      return HypervisorError(.unavailable, operation: "starting the reaper", cause: "\(error)")
    }
  }()

  private static let graceMilliseconds = 1000
  private static let stepMilliseconds = 5

  @Sendable private static func run() {
    var lookedAt: pid_t = 0
    var waitedMilliseconds = 0
    while true {
      var info = siginfo_t()
      // Blocks until a child has ended, and leaves it as it is.
      guard waitid(P_ALL, 0, &info, WEXITED | WNOWAIT) == 0 else {
        usleep(20_000)  // no children
        continue
      }
      let pid = info._sifields._sigchld.si_pid
      if pid != lookedAt { (lookedAt, waitedMilliseconds) = (pid, 0) }
      if isDaemonOfQEMU(pid) || waitedMilliseconds >= graceMilliseconds {
        waitpid(pid, nil, WNOHANG)
      } else {
        usleep(UInt32(stepMilliseconds) * 1000)
        waitedMilliseconds += stepMilliseconds
      }
    }
  }

  /// A QEMU that somebody here started and waits for has not left our session.
  private static func isDaemonOfQEMU(_ pid: pid_t) -> Bool {
    getsid(pid) != getsid(0) && ProcessFiles.text("/proc/\(pid)/comm").hasPrefix("qemu")
  }
}
