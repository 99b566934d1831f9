import Foundation
import LinuxSystem
import Wire

/// The daemons of a lab's hosts.
extension Lab {
  static var program: String {
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

  /// A command on the host, for execvp(3). It sees the processor controller of cgroups, which `ip netns exec` has
  /// covered with the /sys of its own: daemons limit VMs by it.
  func command(on host: Host, _ words: [String]) -> [String] {
    let script = "{ \(Self.cgroupMounts); } 2>/dev/null; exec \"$@\""
    return ["ip", "netns", "exec", host.namespace, "sh", "-c", script, "sh"] + words
  }

  /// By what this process is in: a version 1 hierarchy with the controller, or version 2.
  private static var cgroupMounts: String {
    let groups = (try? String(contentsOfFile: "/proc/self/cgroup", encoding: .utf8)) ?? ""
    let controllers = groups.split(separator: "\n").map {
      $0.split(separator: ":", omittingEmptySubsequences: false)
    }
    .first { $0.count == 3 && $0[1].split(separator: ",").contains("cpu") }?[1]
    guard let controllers else { return "mount -t cgroup2 snowfork /sys/fs/cgroup" }
    let place = "/sys/fs/cgroup/cpu"
    return "mount -t tmpfs snowfork /sys/fs/cgroup && mkdir \(place) && "
      + "mount -t cgroup -o \(controllers) snowfork \(place)"
  }

  func sfctl(
    _ host: Host, _ arguments: [String], _ outer: RuntimePaths, seconds: Int = 120
  ) throws(Failure) {
    let all = command(on: host, [Self.program] + arguments)
    try Tool.run(
      all[0], Array(all.dropFirst()),
      environment: environment(of: host, outer), seconds: seconds)
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
}
