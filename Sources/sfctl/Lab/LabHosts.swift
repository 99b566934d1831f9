import Foundation
import LinuxSystem
import Wire

/// The daemons of a lab's hosts.
extension Lab {
  private static var program: String {
    (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? "sfctl"
  }

  /// What a program on the host finds in its environment.
  func environment(of host: Host, _ outer: RuntimePaths) -> [String: String] {
    let own = paths(of: host, outer)
    // They share the processors.
    let activations = max(2, 2 * ProcessInfo.processInfo.activeProcessorCount / hosts.count)
    return [
      "SNOWFORK_RUN": own.run, "SNOWFORK_STATE": own.state, "SNOWFORK_HOST": host.name, "SNOWFORK_LAB": "0",
      "SNOWFORK_ACTIVATIONS": "\(activations)",
    ]
  }

  func sfctl(_ host: Host, _ arguments: [String], _ outer: RuntimePaths) throws(Failure) {
    try Tool.run(
      "ip", ["netns", "exec", host.namespace, Self.program] + arguments,
      environment: environment(of: host, outer))
  }

  /// Images are the outer ones.
  func makeDirectories(_ outer: RuntimePaths) throws {
    try FileManager.default.createDirectory(atPath: outer.images, withIntermediateDirectories: true)
    for host in hosts {
      let own = paths(of: host, outer)
      for directory in [own.run, own.state] {
        try FileManager.default.createDirectory(
          atPath: directory, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o755])
      }
      if symlink(outer.images, own.images) != 0, errno != EEXIST {
        throw Failure("cannot link the images to \(own.images): \(String(cString: strerror(errno))).")
      }
    }
  }

  /// Every host's daemon runs and knows the others when this returns.
  func enrol(_ outer: RuntimePaths, progress: (Int) async -> Void) async throws {
    let first = hosts[0]
    try sfctl(first, ["host", "init", "--address", first.address, "--name", first.name], outer)
    await progress(1)
    for (index, host) in hosts.dropFirst().enumerated() {
      let bundle = paths(of: host, outer).state + "/bundle"
      try sfctl(first, ["host", "add", host.name, "--address", host.address, "--bundle", bundle], outer)
      try sfctl(host, ["host", "join", bundle], outer)
      unlink(bundle)
      await progress(index + 2)
    }
    try await awaitAll(outer)
  }

  private func awaitAll(_ outer: RuntimePaths) async throws {
    let deadline = ContinuousClock.now + .seconds(60)
    for host in hosts {
      while try await hostsUp(seenFrom: host, outer) < hosts.count {
        guard ContinuousClock.now < deadline else {
          throw Failure(
            "cannot bring the lab up: \(host.name) does not reach the others. See \(paths(of: host, outer).daemonLog)."
          )
        }
        try await Task.sleep(for: .milliseconds(100))
      }
    }
  }

  private func hostsUp(seenFrom host: Host, _ outer: RuntimePaths) async throws -> Int {
    try await Daemon.connected(paths(of: host, outer)) { client in
      try await client.listHosts(.init()).hosts.count { $0.state == "up" }
    }
  }

  /// Ends the daemons with all their VMs; what does not end in good order is killed.
  func endDaemons(_ outer: RuntimePaths) async {
    await withTaskGroup(of: Void.self) { group in
      for host in hosts where FileManager.default.fileExists(atPath: paths(of: host, outer).daemonLock) {
        group.addTask {
          let own = paths(of: host, outer)
          if (try? DaemonStarter(own).answers()) != true {
            // Whoever is left of a daemon that died is ended by another one.
            guard FileManager.default.fileExists(atPath: own.state + "/snowfork.db") else { return }
          }
          try? sfctl(host, ["daemon", "stop", "--destroy-vms"], outer)
        }
      }
    }
    for host in hosts { endProcesses(of: paths(of: host, outer)) }
  }

  /// Processes that name the host's directories; and what is mounted there.
  private func endProcesses(of own: RuntimePaths) {
    for entry in (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? [] {
      guard let pid = Int32(entry), pid != getpid(),
        let environment = FileManager.default.contents(atPath: "/proc/\(pid)/environ"),
        environment.range(of: Data("SNOWFORK_RUN=\(own.run)\0".utf8)) != nil
          || (try? readTextFile("/proc/\(pid)/cmdline"))?.contains(own.state + "/") == true
      else { continue }
      kill(pid, SIGKILL)
    }
    umount2(own.run + "/mem", 2)
  }
}
