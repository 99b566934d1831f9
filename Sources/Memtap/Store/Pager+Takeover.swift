import GuestMemory
import LinuxSystem

/// A VM that an earlier pager served.
struct Awaited {
  var region: Region
  /// The token of the parent at the root: a family is served again when none of it is awaited.
  var family: String
  var pid: Int32
  var startTime: UInt64
}

/// Going on where a pager that died left off.
///
/// Its files say what was true at its last instruction: a page's state was set after its bytes were written, and a
/// protection lifted after that. Its VMs wait in their faults; their shims come back with userfaultfd and memory file.
/// A family is served again, everyone in it woken to fault once more, when each of its VMs is back or known dead.
extension Pager {
  func takeOver() throws {
    for name in try namesInDirectory(paths.staged) { SnapshotFiles.remove("\(paths.staged)/\(name)") }
    let manifests = try namesInDirectory(paths.vms).filter { $0.hasSuffix(".json") }.compactMap {
      try? VMManifest.read("\(paths.vms)/\($0)")
    }
    var byToken: [String: Region] = [:]
    for manifest in manifests {
      byToken[manifest.token] = Region(
        name: manifest.name, token: manifest.token, pageCount: Page.count(ofBytes: manifest.ramBytes),
        thread: thread(forToken: manifest.token))
    }
    let (snapshots, families) = try readSnapshots(byToken)
    for manifest in manifests {
      let region = byToken[manifest.token]!
      region.shared.withLock { $0.isForgotten = manifest.isForgotten }
      if let base = manifest.base { adopt(region, into: snapshots[base], id: base) }
      directory.withLock {
        $0.byToken[region.token] = region
        if !manifest.isForgotten { $0.regions[manifest.name] = region }
        if let pid = manifest.pid, let startTime = manifest.startTime {
          $0.awaited[region.token] = Awaited(
            region: region, family: manifest.base.flatMap { families[$0] } ?? region.token, pid: pid,
            startTime: startTime)
        }
      }
    }
    directory.withLock {
      $0.snapshots = snapshots
      $0.nextSequence = 1 + (snapshots.values.map(\.sequence).max() ?? 0)
    }
    // Last: from here on the threads act on what other hosts say.
    for thread in threads {
      thread.perform { for snapshot in thread.snapshots { thread.reopenNetwork(of: snapshot) } }
    }
  }

  func thread(forToken token: String) -> PagerThread {
    threads[token.utf8.reduce(0) { ($0 &* 31 &+ Int($1)) & 0xffff } % threads.count]
  }

  /// The snapshots by id, and the family of each. A directory that can not be read is removed: its clones can not go on.
  private func readSnapshots(_ byToken: [String: Region]) throws -> ([String: Snapshot], [String: String]) {
    var found: [(id: String, manifest: SnapshotManifest)] = []
    for id in try namesInDirectory(paths.snapshots) {
      if let manifest = try? SnapshotFiles.readManifest("\(paths.snapshots)/\(id)") {
        found.append((id, manifest))
      } else {
        SnapshotFiles.remove("\(paths.snapshots)/\(id)")
      }
    }
    // A base is older than what was made of its clones.
    found.sort { $0.manifest.sequence < $1.manifest.sequence }
    var snapshots: [String: Snapshot] = [:]
    var families: [String: String] = [:]
    var newest: [String: Snapshot] = [:]
    for (id, manifest) in found {
      let place = "\(paths.snapshots)/\(id)"
      let base = manifest.base.flatMap { snapshots[$0] }
      // What was to be written to a standby is written before anyone sees it.
      guard manifest.standby == nil || replayRedo(place), (base == nil) == (manifest.base == nil),
        manifest.ramBytes % UInt64(Page.bytes) == 0,
        let states = try? PageStates(
          opening: SnapshotFiles.states(place), pageCount: Page.count(ofBytes: manifest.ramBytes)),
        let cache = try? MemoryFile.open(SnapshotFiles.pages(place))
      else {
        SnapshotFiles.remove(place)
        continue
      }
      let origin = byToken[manifest.originToken]
      let snapshot = Snapshot(
        directory: place, thread: base?.thread ?? thread(forToken: manifest.originToken),
        sequence: manifest.sequence,
        states: states, cache: cache, origin: origin, originName: manifest.originName, base: base,
        since: manifest.since ?? monotonicNanoseconds())
      snapshot.id = id
      snapshot.standby = (try? SnapshotFiles.readManifest(place))?.standby
      snapshot.recount()
      newest[manifest.originToken]?.newer = snapshot
      newest[manifest.originToken] = snapshot
      origin?.snapshots.append(snapshot)
      snapshots[id] = snapshot
      families[id] = manifest.base.flatMap { families[$0] } ?? manifest.originToken
    }
    for thread in threads {
      let kept = snapshots.values.filter { $0.thread === thread }
      thread.perform { thread.snapshots = kept }
    }
    return (snapshots, families)
  }

  private func adopt(_ region: Region, into base: Snapshot?, id: String) {
    guard let base else {
      region.doomReason = "the page cache of its snapshot \(id) is gone"
      return
    }
    region.base = base
    region.shared.withLock { $0.thread = base.thread }
    base.clones.append(region)
  }

  /// Whether a hello is in order: a new VM has nothing yet, one that comes back has what it had. Listener's thread.
  func readmit(_ region: Region, _ hello: ShimProtocol.Hello) -> Bool {
    guard let awaited = directory.withLock({ $0.awaited[region.token] }) else {
      return hello.userfaultfd == nil && hello.mapped == nil
    }
    guard awaited.pid == hello.pid, awaited.startTime == region.attachment!.startTime else { return false }
    let thread = region.thread
    return thread.perform {
      if let base = region.base {
        if let mapped = hello.mapped {
          guard mapped.snapshot == base.id, let mine = try? base.cache.identity(),
            let theirs = try? MemoryFile(mapped.cache).identity(), mine == theirs
          else { return false }
        } else {
          // It was about to be activated and never was.
          region.base = nil
          base.clones.removeAll { $0 === region }
        }
      } else if hello.mapped != nil, region.doomReason == nil {
        return false
      }
      if let userfaultfd = hello.userfaultfd {
        // What of it is registered is not known: the mode stays nil.
        guard let checked = try? Userfaultfd(handedOver: userfaultfd) else { return false }
        region.userfaultfd = checked
      }
      return true
    }
  }

  /// After each round of the listener: which VMs of the earlier pager have died, which families are complete.
  /// Whether there is still something to wait for.
  func reviewAwaited() -> Bool {
    let awaited = directory.withLock { $0.awaited }
    for (token, one) in awaited {
      let isBack = one.region.shim != nil
      guard isBack || processStartTime(one.pid) != one.startTime else { continue }
      directory.withLock {
        $0.awaited[token] = nil
        $0.returned[one.family, default: []].append(one.region)
      }
      if !isBack { ended(one.region) }
    }
    let (complete, isOver) = directory.withLock { directory in
      let open = Set(directory.awaited.values.map(\.family))
      let complete = directory.returned.filter { !open.contains($0.key) }
      for family in complete.keys { directory.returned[family] = nil }
      return (complete, open.isEmpty)
    }
    for family in complete.values { resume(family) }
    if isOver, !isTakeOverDone {
      isTakeOverDone = true
      for thread in threads {
        thread.post { [self] in
          thread.loseUnreachable()
          tidy(thread)
        }
      }
      arrivals.announce()
    }
    return !isOver
  }

  private func resume(_ family: [Region]) {
    for region in family {
      let thread = region.thread
      thread.post { [self] in
        guard !region.isGone, let userfaultfd = region.userfaultfd else { return }
        do throws(SystemError) { try thread.serve(region) } catch {
          thread.doom(region, "it can not be served: \(error)")
          return
        }
        if let reason = region.base?.lostReason { thread.doom(region, reason) }
        thread.check(userfaultfd.wake(address: region.address(of: 0), length: region.byteCount), region)
        if region.snapshots.isEmpty { worker.submit { [self] in release(region) } }
      }
    }
  }

  /// Waits until everything of the earlier pager has been taken over; a VM whose process stands still is in the way.
  func awaitTakeOver(_ operation: String, _ subject: String) throws(MemtapError) {
    let deadline = monotonicNanoseconds() + 5_000_000_000
    while true {
      let seen = arrivals.count
      let waiting = directory.withLock { $0.awaited.values.map(\.region.name).sorted() }
      if waiting.isEmpty { return }
      guard arrivals.wait(after: seen, until: deadline) else {
        throw MemtapError(
          .state, operation: operation, subject: subject,
          cause: "the pager was restarted and still waits for \(waiting.joined(separator: ", "))")
      }
    }
  }
}
