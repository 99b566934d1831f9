import Glibc

/// Puts the threads that a freeze goes through ahead of everything else on the machine for as long as it takes.
///
/// A freeze is handed to and fro six times between this process and QEMU. On a busy machine each hand-over may wait
/// for a time slice of somebody else's, while the parent stands still: 2 ms became 8 to 25 ms. The virtual CPUs are
/// left as they are, so a guest never runs at this priority.
///
/// Without the privilege for it (CAP_SYS_NICE) nothing changes but the pause on a busy machine.
struct FreezeScheduling {
  private var threads: [pid_t]

  /// For the calling thread, libvirt's threads for `machine` in this process, and QEMU's own threads (process `pid`;
  /// its migration thread inherits).
  init(machine: String, pid: pid_t) {
    let monitorThread = String(decoding: "vm-\(machine)".utf8.prefix(15), as: UTF8.self)
    threads = Self.threads(of: getpid()) { $0 == EventLoop.threadName || $0 == monitorThread }
    if pid > 0 { threads += Self.threads(of: pid) { !$0.hasPrefix("CPU ") } }
    threads.append(0)
    set(SCHED_FIFO, priority: 1)
  }

  /// Back to ordinary scheduling.
  func end() { set(SCHED_OTHER, priority: 0) }

  private func set(_ policy: CInt, priority: CInt) {
    var parameters = sched_param()
    parameters.sched_priority = priority
    for thread in threads { sched_setscheduler(thread, policy, &parameters) }
  }

  private static func threads(of pid: pid_t, where isWanted: (String) -> Bool) -> [pid_t] {
    guard let directory = opendir("/proc/\(pid)/task") else { return [] }
    defer { closedir(directory) }
    var found: [pid_t] = []
    while let entry = readdir(directory) {
      let thread = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { pid_t(String(cString: $0)) }
      }
      if let thread, isWanted(ProcessFiles.firstLine("/proc/\(pid)/task/\(thread)/comm")) {
        found.append(thread)
      }
    }
    return found
  }
}
