import Glibc
import GuestMemory
import LinuxSystem
import Synchronization

/// The pager of a host: knows its VMs and snapshots by name and does what the daemon asks.
///
/// Calls come on any thread and wait for the family's thread, where all page state is touched. What takes long (arming,
/// scanning, activation) runs on the caller's thread, while faults are served.
package final class Pager: MemtapControl, @unchecked Sendable {
  let paths: MemtapPaths
  let events: EventHub
  let threads: [PagerThread]
  /// For what nobody waits for.
  let worker = WorkerThreads(name: "memtap-work", limit: 2)
  private var listener: ShimListener!
  /// Held while a standby receives a checkpoint: one at a time, whoever asks.
  let receiving = Mutex<Void>(())
  /// The listener's thread alone uses it.
  var isTakeOverDone = false

  struct Directory {
    var regions: [String: Region] = [:]
    var byToken: [String: Region] = [:]
    var snapshots: [String: Snapshot] = [:]
    var nextSequence: UInt64 = 1
    /// VMs of an earlier pager that have not come back, by token.
    var awaited: [String: Awaited] = [:]
    /// Those that have come back while others of their family are awaited, by family.
    var returned: [String: [Region]] = [:]
  }
  /// Names only: held for look-ups and changes, never while waiting for a pager thread.
  let directory = Mutex(Directory())
  /// Signalled when a VM's shim has connected.
  let arrivals = Arrivals()

  /// Makes the directories, takes over what an earlier pager left, and opens the shims' door.
  package init(paths: MemtapPaths, tuning: PagerTuning = PagerTuning()) throws {
    self.paths = paths
    events = EventHub()
    let cores = max(1, sysconf(CInt(_SC_NPROCESSORS_ONLN)))
    var threads: [PagerThread] = []
    for number in 0..<cores {
      threads.append(try PagerThread(name: "memtap-pager-\(number)", tuning: tuning, events: events))
    }
    self.threads = threads
    try prepareDirectories()
    try takeOver()
    listener = try ShimListener(
      socketPath: paths.shimSocket,
      onHello: { [unowned self] hello, channel in admit(hello, channel) },
      onEnd: { [unowned self] region in ended(region) },
      onRound: { [unowned self] in reviewAwaited() })
    try listener.start()
  }

  private func prepareDirectories() throws {
    for (path, mode) in [
      (paths.run, mode_t(0o711)), (paths.shimDirectory, 0o711), (paths.memory, 0o711), (paths.cache, 0o700),
      (paths.snapshots, 0o700), (paths.vms, 0o700), (paths.staged, 0o700),
    ] where mkdir(path, mode) != 0 && errno != EEXIST {
      throw SystemError("mkdir", subject: path, errno: errno)
    }
    let cache = MemoryFile(try OwnedDescriptor.open(paths.cache, O_RDONLY | O_DIRECTORY))
    guard cache.liesOnTmpfs else {
      throw MemtapError(
        .unsupported, operation: "start", subject: paths.memory,
        cause: "it is no tmpfs; mount one there (mount -t tmpfs -o huge=advise snowfork \(paths.memory))")
    }
  }

  // MARK: Names

  func region(_ vm: String, _ operation: String) throws(MemtapError) -> Region {
    guard let region = directory.withLock({ $0.regions[vm] }) else {
      throw MemtapError(
        .notFound, operation: operation, subject: vm, cause: "the pager knows no VM of that name")
    }
    return region
  }

  func snapshot(_ id: String, _ operation: String) throws(MemtapError) -> Snapshot {
    guard let snapshot = directory.withLock({ $0.snapshots[id] }) else {
      throw MemtapError(
        .notFound, operation: operation, subject: id, cause: "the pager knows no snapshot of that name")
    }
    return snapshot
  }

  /// A VM whose RAM is known.
  func connected(_ vm: String, _ operation: String) throws(MemtapError) -> (Region, ShimChannel) {
    let region = try region(vm, operation)
    try awaitTakeOver(operation, vm)
    guard let shim = region.shim else {
      throw MemtapError(.state, operation: operation, subject: vm, cause: "its QEMU is not connected")
    }
    return (region, shim)
  }

  /// After anything that may have ended a need: removes snapshots, and releases origins that none needs any more.
  /// On the family's thread.
  func tidy(_ thread: PagerThread) {
    var origins: [Region] = []
    thread.tidy { snapshot in
      directory.withLock { $0.snapshots[snapshot.id] = nil }
      if let origin = snapshot.origin { origins.append(origin) }
    }
    for origin in origins where origin.snapshots.isEmpty && !origin.isGone {
      worker.submit { [self] in release(origin) }
    }
  }

  // MARK: What is there

  package func status() throws(MemtapError) -> MemtapStatus {
    directory.withLock {
      MemtapStatus(
        pid: getpid(), version: memtapVersion, vms: $0.regions.keys.sorted(),
        snapshots: $0.snapshots.keys.sorted())
    }
  }

  package func statistics() throws(MemtapError) -> MemtapStatistics {
    let (regions, snapshots) = directory.withLock { (Array($0.regions.values), Array($0.snapshots.values)) }
    var statistics = MemtapStatistics(vms: [], snapshots: [])
    for thread in threads {
      let (vms, shots) = thread.perform {
        (
          regions.filter { $0.thread === thread }.map(\.statistics),
          snapshots.filter { $0.thread === thread }.map(\.statistics)
        )
      }
      statistics.vms += vms
      statistics.snapshots += shots
    }
    let byName = Dictionary(regions.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
    for index in statistics.vms.indices {
      if let region = byName[statistics.vms[index].vm] { countAvoided(region, in: &statistics.vms[index]) }
    }
    return statistics
  }

  /// What a new listener for events has to know at once.
  func standingEvents() -> [MemtapEvent] {
    let (regions, snapshots) = directory.withLock { (Array($0.regions.values), Array($0.snapshots.values)) }
    var standing: [MemtapEvent] = []
    for thread in threads {
      standing += thread.perform {
        var due: [MemtapEvent] = []
        for snapshot in snapshots where snapshot.thread === thread {
          if let reason = snapshot.lostReason {
            due.append(.snapshotLost(snapshot: snapshot.id, reason: reason))
          }
          if snapshot.remote?.isPushedWhole == true { due.append(.whole(snapshot: snapshot.id)) }
        }
        for region in regions where region.thread === thread {
          if region.isGone {
            due.append(.vmGone(vm: region.name))
          } else if let reason = region.doomReason {
            due.append(.mustEnd(vm: region.name, reason: reason))
          }
        }
        return due
      }
    }
    return standing
  }
}

/// Of the pager; its control protocol goes with it.
let memtapVersion = "1"

extension MemtapError {
  /// A system call failed on the way.
  init(_ operation: String, _ subject: String, _ error: any Error) {
    let code: Code =
      switch (error as? SystemError)?.errno ?? (error as? ShimProtocol.Refusal)?.errno {
      case ENOMEM, ENOSPC: .outOfMemory
      case ENOSYS, ENOTTY, EOPNOTSUPP: .unsupported
      default: .failed
      }
    let cause = code == .outOfMemory ? "no memory is left (\(error))" : "\(error)"
    self.init(code, operation: operation, subject: subject, cause: cause)
  }
}
