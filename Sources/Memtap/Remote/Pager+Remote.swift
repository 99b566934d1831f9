import Glibc
import GuestMemory
import LinuxSystem

/// Snapshots served to other hosts, and those that come from them.
extension Pager {
  package func serve(
    snapshot id: String, address: String, transport: PageTransport
  ) throws(MemtapError) -> PageOrigin {
    let snapshot = try snapshot(id, "serve")
    return try snapshot.thread.attempt { () throws(MemtapError) -> PageOrigin in
      if let served = snapshot.served { return served.origin }
      if let reason = snapshot.lostReason {
        throw MemtapError(.state, operation: "serve", subject: id, cause: "it is lost: \(reason)")
      }
      do {
        return try self.serve(snapshot, address: address, transport: transport, again: nil)
      } catch {
        throw MemtapError("serve", id, error)
      }
    }
  }

  /// On the family's thread.
  @discardableResult
  func serve(
    _ snapshot: Snapshot, address: String, transport: PageTransport, again: PageOrigin?
  ) throws -> PageOrigin {
    let served = try ServedSnapshot(
      snapshot, on: snapshot.thread, address: address, transport: transport, again: again)
    try SnapshotFiles.write(served.origin, in: snapshot.directory)
    try snapshot.thread.add(served)
    snapshot.served = served
    return served.origin
  }

  package func attach(_ remote: RemoteSnapshot) throws(MemtapError) {
    let id = remote.id
    func refuse(_ cause: String) -> MemtapError {
      MemtapError(.failed, operation: "attach", subject: id, cause: cause)
    }
    guard isFileName(id), remote.ramBytes > 0, remote.ramBytes % UInt64(Page.bytes) == 0,
      remote.origin.key.count == 32
    else { throw refuse("it is no snapshot's description") }
    if let known = directory.withLock({ $0.snapshots[id] }) {
      if known.remote != nil { return }
      throw refuse("a snapshot of that name has its origin on this host")
    }
    let sequence = directory.withLock {
      $0.nextSequence += 1
      return $0.nextSequence
    }
    let place = "\(paths.snapshots)/\(id)"
    do {
      var description = remote
      description.existing = []
      try SnapshotFiles.create(
        place,
        SnapshotManifest(
          originName: remote.parent, originToken: "", base: nil, ramBytes: remote.ramBytes,
          sequence: sequence, remote: description))
      let pageCount = Page.count(ofBytes: remote.ramBytes)
      let states = try PageStates(
        creating: SnapshotFiles.states(place), pageCount: pageCount, initial: .zero)
      for run in remote.existing {
        let range = Int(run.first)..<Int(run.first) + Int(run.count)
        guard range.upperBound <= pageCount else { throw refuse("its pages lie outside of its RAM") }
        states.fill(range, .atOrigin)
      }
      let cache = try MemoryFile.create(SnapshotFiles.pages(place), bytes: remote.ramBytes)
      let snapshot = Snapshot(
        directory: place, thread: thread(forToken: id), sequence: sequence, states: states, cache: cache,
        origin: nil, originName: remote.parent, base: nil)
      snapshot.id = id
      snapshot.recount()
      try snapshot.thread.perform { [self] in Result { try join(snapshot, description) } }.get()
    } catch {
      SnapshotFiles.remove(place)
      throw (error as? MemtapError) ?? MemtapError("attach", id, error)
    }
  }

  private func join(_ snapshot: Snapshot, _ description: RemoteSnapshot) throws {
    let thread = snapshot.thread
    try receive(snapshot, description)
    thread.snapshots.append(snapshot)
    directory.withLock { $0.snapshots[snapshot.id] = snapshot }
  }

  /// On the family's thread: its pages come from now on.
  func receive(_ snapshot: Snapshot, _ description: RemoteSnapshot) throws {
    let remote = try RemoteSource(description, of: snapshot, on: snapshot.thread)
    try snapshot.thread.add(remote)
    snapshot.remote = remote
    if description.push { remote.setPush(true) }
  }

  package func push(snapshot id: String, _ isOn: Bool) throws(MemtapError) {
    let snapshot = try snapshot(id, "push")
    snapshot.thread.perform { snapshot.remote?.setPush(isOn) }
  }

  package func originGone(snapshot id: String, reason: String) throws(MemtapError) {
    let snapshot = try snapshot(id, "originGone")
    snapshot.thread.perform { snapshot.remote?.originGone(reason) }
  }

  package func history(snapshot id: String) throws(MemtapError) -> SnapshotHistory {
    let snapshot = try snapshot(id, "history")
    return snapshot.thread.perform { snapshot.history }
  }
}

extension Snapshot {
  /// On its family's thread.
  var history: SnapshotHistory {
    let states = states
    let absent: UInt8 = remote == nil ? 1 : 0
    let pages = (0..<pageCount).map { page -> UInt8 in
      switch states[page] {
      case .zero: 5
      case .present: arrivals[page].rawValue
      case .atOrigin, .atBase: absent
      }
    }
    return SnapshotHistory(samples: samples.samples, pages: pages)
  }

  /// On its family's thread.
  var distribution: DistributionCounters? { remote?.counters ?? served?.counters }
}
