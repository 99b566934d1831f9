import LinuxSystem

/// How QEMU reads and writes a disk's files.
///
/// In a fork's pause QEMU opens each layer anew, by half a dozen small reads one after the other; a thread of its own for
/// each makes them a third longer.
package enum FileEngine: String {
  /// io_uring(7). Administrators may forbid it (sysctl `kernel.io_uring_disabled`, Linux 6.6).
  case uring = "io_uring"
  case threads

  /// What an unprivileged process may use on this host.
  static let here: FileEngine = {
    let forbidden = ProcessFiles.firstLine("/proc/sys/kernel/io_uring_disabled")
    return IOUring.isAvailable && ["", "0"].contains(forbidden) ? .uring : .threads
  }()
}
