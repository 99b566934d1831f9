import Foundation

/// What a host left behind after it was told to end all: nothing, or a test fails.
public enum LeftBehind {
  struct HostProcess {
    var pid: Int32
    var name: String
  }

  /// Processes whose environment or command line names the host's directory; not those that have ended.
  static func processes(of host: TestHost) -> [HostProcess] {
    let entries = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
    return entries.compactMap { entry in
      guard let pid = Int32(entry), pid != getpid() else { return nil }
      let told = ["environ", "cmdline"].contains { file in
        String(
          decoding: FileManager.default.contents(atPath: "/proc/\(pid)/\(file)") ?? Data(), as: UTF8.self
        )
        .contains(host.directory + "/")
      }
      guard told, let name = try? String(contentsOfFile: "/proc/\(pid)/comm", encoding: .utf8) else {
        return nil
      }
      return HostProcess(pid: pid, name: name.trimmingCharacters(in: .newlines))
    }
  }

  static func mounts(of host: TestHost) -> [String] {
    let table = (try? String(contentsOfFile: "/proc/self/mountinfo", encoding: .utf8)) ?? ""
    return table.split(separator: "\n").compactMap { line in
      let path = line.split(separator: " ")[4]
      return path.hasPrefix(host.directory + "/") ? String(path) : nil
    }
  }

  /// Files other than those that may stay: locks, and in the state directory the database, logs, images and what
  /// libvirt keeps of itself (but no domain of it).
  static func files(of host: TestHost) -> [String] {
    func below(_ directory: String) -> [String] {
      let all = FileManager.default.enumerator(atPath: directory)?.compactMap { $0 as? String } ?? []
      return all.filter { path in
        var isDirectory: ObjCBool = false
        return FileManager.default.fileExists(atPath: directory + "/" + path, isDirectory: &isDirectory)
          ? !isDirectory.boolValue : true
      }
    }
    let run = below(host.run).filter { !$0.hasSuffix(".lock") }.map { "run/" + $0 }
    let state = below(host.state).filter { path in
      switch path.split(separator: "/")[0] {
      case "images", "console", "sfd.log", "memtap.log", "storage-daemon.log", "nbdkit.log", "snowfork.db",
        "snowfork.db-wal", "snowfork.db-shm":
        false
      case "disks": !path.hasPrefix("disks/empty/") && path != "disks/boot"
      case "libvirt":
        path.hasPrefix("libvirt/run/qemu/") && path.hasSuffix(".xml")
          || path.hasPrefix("libvirt/lib/qemu/domain-")
      default: true
      }
    }
    return run + state.map { "state/" + $0 }
  }

  /// Ends everything on the host as a user would, says what is there all the same, and removes it.
  public static func afterEnd(of host: TestHost) -> [String] {
    var found: [String] = []
    if FileManager.default.fileExists(atPath: host.run + "/sfd.lock") {
      if let outcome = try? host.sfctl("daemon", "stop", "--destroy-vms"), outcome.status != 0 {
        found.append("sfctl daemon stop --destroy-vms: \(outcome.error)")
      }
      _ = eventually(seconds: 20) { processes(of: host).isEmpty && mounts(of: host).isEmpty }
    }
    found += processes(of: host).map { "process \($0.name) (\($0.pid))" }
    found += mounts(of: host).map { "mount \($0)" }
    found += files(of: host).map { "file \($0)" }
    clean(host)
    return found
  }

  private static func clean(_ host: TestHost) {
    for process in processes(of: host) { kill(process.pid, SIGKILL) }
    _ = eventually(seconds: 10) { processes(of: host).isEmpty }
    for mount in mounts(of: host).reversed() { umount2(mount, CInt(MNT_DETACH)) }
    try? FileManager.default.removeItem(atPath: host.directory)
  }
}
