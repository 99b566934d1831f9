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
      if let service = snapshot.service { return service.origin }
      if let reason = snapshot.lostReason {
        throw MemtapError(.state, operation: "serve", subject: id, cause: "it is lost: \(reason)")
      }
      var generator = SystemRandomNumberGenerator()
      let key = (0..<32).map { _ in UInt8.random(in: 0...255, using: &generator) }
      do throws(SystemError) {
        let service = try PageService(
          of: snapshot, address: address, transport: transport, key: key, as: nil)
        // Before anyone knows of it: a successor serves there too.
        do throws(SystemError) {
          try SnapshotFiles.changeManifest(snapshot.directory) { $0.served = service.origin }
        } catch {
          service.close("it could not be recorded")
          throw error
        }
        snapshot.service = service
        return service.origin
      } catch {
        throw MemtapError("serve", id, error)
      }
    }
  }

  package func attach(_ remote: RemoteSnapshot) throws(MemtapError) {
    func refuse(_ cause: String) -> MemtapError {
      MemtapError(.failed, operation: "attach", subject: remote.id, cause: cause)
    }
    guard isFileName(remote.id) else { throw refuse("it is no snapshot's name") }
    guard remote.ramBytes > 0, remote.ramBytes % UInt64(Page.bytes) == 0, remote.ramBytes <= 16 << 40 else {
      throw refuse("\(remote.ramBytes) bytes are no possible size of RAM")
    }
    guard remote.origin.key.count == 32 else { throw refuse("its key has not 256 bits") }
    let pageCount = Page.count(ofBytes: remote.ramBytes)
    var end = 0
    for run in remote.existing {
      guard Int(run.first) >= end, Int(run.first) + Int(run.count) <= pageCount else {
        throw refuse("its pages are not in ascending order within its RAM")
      }
      end = Int(run.first) + Int(run.count)
    }
    let base = warmBase(of: remote)
    let thread = base?.thread ?? thread(forToken: "remote:\(remote.id)")
    try thread.attempt { [self] () throws(MemtapError) in
      if let known = directory.withLock({ $0.snapshots[remote.id] }) {
        // Made before: the same, or another one of that name.
        guard let source = known.remote, source.configuration.origin == remote.origin else {
          throw MemtapError(
            .state, operation: "attach", subject: remote.id, cause: "another snapshot has that name")
        }
        return
      }
      do throws(SystemError) { try attach(remote, pageCount, onto: base, on: thread) } catch {
        throw MemtapError("attach", remote.id, error)
      }
    }
  }

  /// On the thread that is its family's from now on.
  private func attach(
    _ remote: RemoteSnapshot, _ pageCount: Int, onto standby: Snapshot?, on thread: PagerThread
  ) throws(SystemError) {
    var record = remote
    record.existing = []
    record.warm = nil
    let base = standby.flatMap { $0.isWarm(for: remote) ? $0 : nil }
    let since = monotonicNanoseconds()
    let sequence = directory.withLock {
      $0.nextSequence += 1
      return $0.nextSequence
    }
    let draft = "\(paths.staged)/remote-\(remote.id)"
    let place = "\(paths.snapshots)/\(remote.id)"
    try SnapshotFiles.create(
      draft,
      SnapshotManifest(
        originName: remote.parent, originToken: "remote:\(remote.id)", base: base?.id,
        ramBytes: remote.ramBytes,
        sequence: sequence, since: since, remote: record))
    var made: Snapshot?
    do throws(SystemError) {
      let states = try PageStates(
        creating: SnapshotFiles.states(draft), pageCount: pageCount, initial: .zero)
      for run in remote.existing {
        states.fill(
          Int(run.first)..<Int(run.first) + Int(run.count), base == nil ? .atOrigin : .atBase)
      }
      if base != nil { remote.warm?.markWritten(in: states) }
      let cache = try MemoryFile.create(SnapshotFiles.pages(draft), bytes: remote.ramBytes)
      let snapshot = Snapshot(
        directory: draft, thread: thread, sequence: sequence, states: states, cache: cache, origin: nil,
        originName: remote.parent, base: base, since: since)
      made = snapshot
      snapshot.id = remote.id
      snapshot.recount()
      let source = RemoteSource(of: snapshot, as: record)
      snapshot.remote = source
      try source.open()
      SnapshotFiles.remove(place)
      try systemCall("rename", subject: place) { Glibc.rename(draft, place) }
      snapshot.directory = place
    } catch {
      made?.remote?.close()
      SnapshotFiles.remove(draft)
      throw error
    }
    guard let snapshot = made else { return }
    thread.snapshots.append(snapshot)
    directory.withLock { $0.snapshots[remote.id] = snapshot }
    if snapshot.remote?.isPushedWhole == true { events.post(.whole(snapshot: remote.id)) }
  }

  package func push(snapshot id: String, _ isOn: Bool) throws(MemtapError) {
    let snapshot = try snapshot(id, "push")
    try snapshot.thread.attempt { [self] () throws(MemtapError) in
      guard let remote = snapshot.remote else {
        throw MemtapError(.state, operation: "push", subject: id, cause: "its origin is on this host")
      }
      if let reason = snapshot.lostReason {
        throw MemtapError(.state, operation: "push", subject: id, cause: "it is lost: \(reason)")
      }
      guard remote.isPushed != isOn else { return }
      do throws(SystemError) {
        try SnapshotFiles.changeManifest(snapshot.directory) { $0.remote?.push = isOn }
      } catch {
        throw MemtapError("push", id, error)
      }
      remote.setPush(isOn)
      if remote.isPushedWhole { events.post(.whole(snapshot: id)) }
    }
  }

  package func originGone(snapshot id: String, reason: String) throws(MemtapError) {
    let snapshot = try snapshot(id, "originGone")
    snapshot.thread.perform {
      snapshot.thread.originGone(snapshot, reason)
      snapshot.remote?.finishIfDone()
    }
  }

  package func history(snapshot id: String) throws(MemtapError) -> SnapshotHistory {
    let snapshot = try snapshot(id, "history")
    return snapshot.thread.perform { snapshot.historySoFar(at: monotonicNanoseconds()) }
  }
}
