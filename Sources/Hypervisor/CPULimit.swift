import Glibc

/// What a machine's virtual CPUs get of the host's processors: a cgroup for each of their threads. QEMU's other
/// threads, which do the guest's I/O and the freeze, are left alone.
///
///     snowfork/dev.1f3a/vcpu0     the machine's name, and a tag of the daemon's: other daemons have a `dev` too
struct CPULimit {
  /// A percent of this is the least quota that the kernel takes, 1 ms.
  private static let longestPeriodMicroseconds = 100_000
  /// As short as may be: a virtual CPU that has used up its share waits for the rest of the period.
  private static let shortestPeriodMicroseconds = 20_000

  private static let leastQuotaMicroseconds = 1000

  private let group: ControlGroup?

  /// `owner`: a path that no other daemon has.
  init(machine: String, owner: String) {
    group = ControlGroup.top?.child("\(machine).\(Self.tag(owner))")
  }

  /// FNV-1a.
  private static func tag(_ owner: String) -> String {
    String(owner.utf8.reduce(UInt32(2_166_136_261)) { ($0 ^ UInt32($1)) &* 16_777_619 }, radix: 16)
  }

  /// Limits each virtual CPU to `percent` of a processor. `threads[i]` is the thread of virtual CPU i of process `pid`;
  /// virtual CPUs that share one thread get their shares together. What was set before is replaced.
  func apply(percent: Int, pid: pid_t, threads: [pid_t]) throws(HypervisorError) {
    guard let group, let top = ControlGroup.top else {
      throw refused("the kernel's CPU controller is not mounted below /sys/fs/cgroup")
    }
    do {
      // Whoever ends the last limited machine, in another daemon too, takes the top away.
      for attempt in 1...3 {
        do {
          try top.make()
          try group.make()
          break
        } catch { if attempt == 3 { throw error } }
      }
      try group.take(process: pid)
      for thread in Set(threads).sorted() {
        let sharing = threads.count { $0 == thread }
        let part = group.child("vcpu\(threads.firstIndex(of: thread) ?? 0)")
        try part.makeThreaded()
        try Self.limit(part, percent: percent * sharing)
        try part.take(threads: [thread])
      }
    } catch {
      throw refused("\(error)")
    }
  }

  private static func limit(_ group: ControlGroup, percent: Int) throws {
    let period = max(shortestPeriodMicroseconds, longestPeriodMicroseconds / max(percent, 1))
    let quota = max(leastQuotaMicroseconds, period * percent / 100)
    try group.limit(quotaMicroseconds: quota, periodMicroseconds: period)
  }

  /// Removes the machine's groups, and ours if it was the last. Nothing happens while it runs.
  func remove() {
    group?.remove()
    ControlGroup.top.map { _ = rmdir($0.path) }
  }

  /// Removes the groups of this owner's machines that run no more.
  static func removeLeftovers(owner: String) {
    guard let top = ControlGroup.top else { return }
    for name in top.children where name.hasSuffix(".\(tag(owner))") { top.child(name).remove() }
    rmdir(top.path)
  }

  /// Nil: limits work here. Else why not. Tried with a group that nothing is in, and which is removed again.
  static func obstacle() -> String? {
    guard let top = ControlGroup.top else { return "the kernel's CPU controller is not mounted" }
    let trial = top.child("trial.\(getpid())")
    defer {
      trial.remove()
      rmdir(top.path)
    }
    do {
      try top.make()
      try trial.make()
      let part = trial.child("vcpu0")
      try part.makeThreaded()
      try limit(part, percent: 50)
    } catch {
      return "\(error)"
    }
    return nil
  }

  private func refused(_ cause: String) -> HypervisorError {
    HypervisorError(
      .unavailable, operation: "limiting the processor time",
      cause: "its processor time cannot be limited (\(cause))")
  }
}
