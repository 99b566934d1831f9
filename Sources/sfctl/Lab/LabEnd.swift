import CloneNetwork
import Foundation
import Hypervisor
import LinuxSystem
import Wire

/// The lab's end: in good order as far as that goes, in bounded time in any case.
extension Lab {
  /// What a daemon has for ending its VMs and itself, seconds. A second begins when the first has ended.
  private static let orderlySeconds = 20
  private static let killSeconds = 15

  /// Ends the daemons with all their VMs, and the relays; what does not end in good order is killed.
  func endProcesses(_ outer: RuntimePaths) async {
    await withTaskGroup(of: Void.self) { group in
      for host in hosts where FileManager.default.fileExists(atPath: paths(of: host, outer).daemonLock) {
        group.addTask { endDaemon(of: host, outer) }
      }
    }
    let deadline = ContinuousClock.now + .seconds(Self.killSeconds)
    var left = processes(outer)
    while !left.isEmpty, ContinuousClock.now < deadline {
      for pid in left { kill(pid, SIGKILL) }
      try? await Task.sleep(for: .milliseconds(20))
      left = processes(outer)
    }
    for host in hosts {
      let own = paths(of: host, outer)
      // Routers of families are namespaces of their own; a daemon that was killed leaves them.
      try? HostNetwork(namespace: "/run/netns/\(host.namespace)").sweep(keeping: [])
      umount2(own.run + "/mem", CInt(MNT_DETACH))
      LibvirtHypervisor.removeLimits(embeddedRoot: own.state + "/libvirt")
    }
  }

  private func endDaemon(of host: Host, _ outer: RuntimePaths) {
    let own = paths(of: host, outer)
    if (try? DaemonStarter(own).answers()) != true {
      // Whoever is left of a daemon that died is ended by another one.
      guard FileManager.default.fileExists(atPath: own.state + "/snowfork.db") else { return }
    }
    try? sfctl(host, ["daemon", "stop", "--destroy-vms"], outer, seconds: Self.orderlySeconds)
  }

  /// Processes that name the directories of the lab's hosts and have not ended.
  private func processes(_ outer: RuntimePaths) -> [pid_t] {
    let hosts = hosts.map { paths(of: $0, outer) }
    let environments = hosts.map { Data("SNOWFORK_RUN=\($0.run)\0".utf8) }
    let directories = hosts.map { Data(($0.state + "/").utf8) }
    return ((try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []).compactMap { entry in
      guard let pid = pid_t(entry), pid != getpid() else { return nil }
      let environment = FileManager.default.contents(atPath: "/proc/\(pid)/environ") ?? Data()
      let arguments = FileManager.default.contents(atPath: "/proc/\(pid)/cmdline") ?? Data()
      // One that has ended and is not collected has neither.
      let isOurs =
        environments.contains { environment.range(of: $0) != nil }
        || directories.contains { arguments.range(of: $0) != nil }
      return isOurs ? pid : nil
    }
  }
}
