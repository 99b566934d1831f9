import Glibc
import LinuxSystem

/// The kernel's CPU controller, by whichever version of cgroups has it here.
///
/// libvirt's `<cputune>` would do the same, but its embedded driver stumbles over a hybrid layout (version 2 mounted
/// without controllers) where this does not. Groups outlive the process that made them.
struct ControlGroup {
  let path: String
  private let version: Version

  private enum Version { case one, two }

  /// The group `snowfork` of the first hierarchy that has the controller, there or not; nil: none has.
  static var top: ControlGroup? {
    let root = "/sys/fs/cgroup"
    let controllers = ProcessFiles.firstLine("\(root)/cgroup.controllers")
    if controllers.split(separator: " ").contains("cpu") {
      return ControlGroup(path: "\(root)/snowfork", version: .two)
    }
    for mount in ["\(root)/cpu", "\(root)/cpu,cpuacct"] where access("\(mount)/tasks", F_OK) == 0 {
      return ControlGroup(path: "\(mount)/snowfork", version: .one)
    }
    return nil
  }

  func child(_ name: String) -> ControlGroup { ControlGroup(path: "\(path)/\(name)", version: version) }

  /// Makes it, as a group whose children can have limits. No error if it is there.
  func make() throws {
    try makeDirectory()
    guard version == .two else { return }
    // A controller is there for the groups below the one that names it.
    let above = String(path[..<(path.lastIndex(of: "/") ?? path.endIndex)])
    for group in [above, path] { try Self.write("+cpu", to: "\(group)/cgroup.subtree_control") }
  }

  /// Version 2 keeps a process's threads in one such group or below it; version 1 does not mind.
  func take(process: pid_t) throws {
    if version == .two { try Self.write("\(process)", to: "\(path)/cgroup.procs") }
  }

  /// Makes it for single threads, which `take(threads:)` brings.
  func makeThreaded() throws {
    try makeDirectory()
    if version == .two { try Self.write("threaded", to: "\(path)/cgroup.type") }
  }

  func take(threads: [pid_t]) throws {
    let file = version == .two ? "cgroup.threads" : "tasks"
    for thread in threads { try Self.write("\(thread)", to: "\(path)/\(file)") }
  }

  /// All of its threads together get `quota` of each `period`, microseconds; the kernel takes neither below 1,000.
  func limit(quotaMicroseconds quota: Int, periodMicroseconds period: Int) throws {
    if version == .two {
      try Self.write("\(quota) \(period)", to: "\(path)/cpu.max")
    } else {
      try Self.write("-1", to: "\(path)/cpu.cfs_quota_us")  // or the old one may not fit the new period
      try Self.write("\(period)", to: "\(path)/cpu.cfs_period_us")
      try Self.write("\(quota)", to: "\(path)/cpu.cfs_quota_us")
    }
  }

  /// Removes it and the groups in it, as far as nothing runs in them.
  func remove() {
    for name in children { rmdir("\(path)/\(name)") }
    rmdir(path)
  }

  var children: [String] {
    guard let directory = opendir(path) else { return [] }
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory) {
      guard entry.pointee.d_type == DT_DIR else { continue }
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if name != ".", name != ".." { names.append(name) }
    }
    return names
  }

  private func makeDirectory() throws(SystemError) {
    if mkdir(path, 0o755) == 0 || errno == EEXIST { return }
    throw SystemError("mkdir", subject: path, errno: errno)
  }

  private static func write(_ text: String, to path: String) throws {
    let file = try OwnedDescriptor.open(path, O_WRONLY)
    try Array(text.utf8).withUnsafeBytes { try file.writeFully($0) }
  }
}
