import Glibc
import LinuxSystem

/// The directory tree of libvirt's embedded driver: its configuration, the run-time state by which a new process
/// adopts running machines, logs, and the cache of QEMU's capabilities.
struct EmbeddedRoot {
  /// The unprivileged user and group of QEMU, made by Debian's libvirt-daemon-system.
  static let user = "libvirt-qemu"

  let path: String

  /// The root in `qemu:///embed?root=DIR`; nil for any other URI.
  init?(uri: String) {
    let prefix = "qemu:///embed?root="
    guard uri.hasPrefix(prefix) else { return nil }
    path = String(uri.dropFirst(prefix.count))
  }

  /// Creates the tree and writes `etc/qemu.conf`. Guest RAM will be files below `memoryDirectory`.
  func prepare(memoryDirectory: String) throws(HypervisorError) {
    do {
      for directory in [path, "\(path)/etc", "\(path)/log", memoryDirectory] { try makeDirectory(directory) }
      try write(configuration(memoryDirectory: memoryDirectory), to: "\(path)/etc/qemu.conf")
    } catch {
      throw HypervisorError(.unavailable, operation: "preparing \(path)", cause: "\(error)")
    }
  }

  /// Everything that would have libvirt wait for a daemon (virtlogd, systemd, udev) or start a helper process
  /// (mount namespaces) is off. QEMU runs as an unprivileged user under its own seccomp filter.
  func configuration(memoryDirectory: String) -> String {
    """
    # Written by sfd at every start: changes here are lost.
    user = "\(Self.user)"
    group = "\(Self.user)"
    security_driver = "none"
    dynamic_ownership = 1
    remember_owner = 0
    namespaces = []
    cgroup_controllers = []
    stdio_handler = "file"
    memory_backing_dir = "\(memoryDirectory)"
    set_process_name = 1
    max_core = 0

    """
  }

  private func makeDirectory(_ directory: String) throws(SystemError) {
    var prefix = ""
    for component in directory.split(separator: "/") {
      prefix += "/\(component)"
      do {
        try systemCall("mkdir", subject: prefix) { mkdir(prefix, 0o755) }
      } catch  where error.errno == EEXIST {
        continue
      }
    }
  }

  private func write(_ text: String, to file: String) throws {
    let descriptor = try OwnedDescriptor.open(file, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o644)
    try Array(text.utf8).withUnsafeBytes { try descriptor.writeFully($0) }
  }
}
