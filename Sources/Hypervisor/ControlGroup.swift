import Glibc
import LinuxSystem

/// A machine's share of the host's processors, kept by the kernel's CPU controller: a cgroup of its own that
/// holds its QEMU. libvirt's `<cputune>` would do the same, but its embedded driver stumbles over a hybrid cgroup
/// layout (version 2 mounted without controllers) where this does not.
struct CPULimit {
  private static let periodMicroseconds = 20_000

  /// The cgroup of this machine, whether it exists or not; nil where the kernel offers no CPU controller.
  private let group: String?
  private let root: String
  private let isVersion2: Bool

  init(machine: String) {
    let version2 = "/sys/fs/cgroup"
    if ProcessFiles.firstLine("\(version2)/cgroup.controllers").split(separator: " ").contains("cpu") {
      (root, isVersion2) = (version2, true)
      group = "\(version2)/snowfork/\(machine)"
    } else {
      let mounts = ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"]
      root = mounts.first { access("\($0)/cgroup.procs", F_OK) == 0 } ?? ""
      isVersion2 = false
      group = root.isEmpty ? nil : "\(root)/snowfork/\(machine)"
    }
  }

  var isSupported: Bool { group != nil }

  /// Limits process `pid` to `percent` of one processor, all its threads together.
  func apply(percent: Int, pid: pid_t) throws(HypervisorError) {
    guard let group else { throw refused("the kernel's CPU controller is not mounted below /sys/fs/cgroup") }
    let quotaMicroseconds = Self.periodMicroseconds * percent / 100
    do {
      try makeDirectory("\(root)/snowfork")
      if isVersion2 {
        for parent in [root, "\(root)/snowfork"] { try write("+cpu", to: "\(parent)/cgroup.subtree_control") }
      }
      try makeDirectory(group)
      if isVersion2 {
        try write("\(quotaMicroseconds) \(Self.periodMicroseconds)", to: "\(group)/cpu.max")
      } else {
        try write("\(Self.periodMicroseconds)", to: "\(group)/cpu.cfs_period_us")
        try write("\(quotaMicroseconds)", to: "\(group)/cpu.cfs_quota_us")
      }
      try write("\(pid)", to: "\(group)/cgroup.procs")
    } catch {
      throw refused("\(error)")
    }
  }

  /// Removes the machine's cgroup, and ours if it was the last. Nothing happens while a process is in it.
  func remove() {
    guard let group, rmdir(group) == 0 else { return }
    rmdir("\(root)/snowfork")
  }

  private func refused(_ cause: String) -> HypervisorError {
    HypervisorError(
      .unavailable, operation: "limiting the processor time", cause: "\(cause). Start it without a limit.")
  }

  private func makeDirectory(_ path: String) throws(SystemError) {
    if mkdir(path, 0o755) == 0 || errno == EEXIST { return }
    throw SystemError("mkdir", subject: path, errno: errno)
  }

  private func write(_ text: String, to path: String) throws {
    let file = try OwnedDescriptor.open(path, O_WRONLY)
    try Array(text.utf8).withUnsafeBytes { try file.writeFully($0) }
  }
}
