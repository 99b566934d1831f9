import Glibc
import GuestMemory
import LinuxSystem
import Replicator

/// A standby: a snapshot without an origin, all of whose pages are here, and that becomes the next checkpoint's as long
/// as no VM is mapped on it.
extension Pager {
  package func standbys() throws(MemtapError) -> [StandbyStatus] {
    let snapshots = directory.withLock { Array($0.snapshots.values) }
    return snapshots.compactMap { snapshot in snapshot.thread.perform { snapshot.standbyStatus } }
      .sorted { $0.standby < $1.standby }
  }

  package func receive(
    standby id: String, parent: String, path: String
  ) throws(MemtapError) -> StandbyStatus {
    do {
      return try receiving.withLock { _ in try take(path, standby: id, parent: parent) }
    } catch let error as MemtapError {
      throw error
    } catch let error as CheckpointError {
      throw MemtapError(.failed, operation: "receive", subject: id, cause: "\(error)")
    } catch {
      throw MemtapError("receive", id, error)
    }
  }

  private func take(_ path: String, standby id: String, parent: String) throws -> StandbyStatus {
    func refuse(_ cause: String) -> MemtapError {
      MemtapError(.state, operation: "receive", subject: id, cause: cause)
    }
    guard isFileName(id) else { throw refuse("it is no snapshot's name") }
    let file = try CheckpointFile.open(path)
    let header = try file.verify()
    let mark = StandbyMark(sequence: header.sequence, digest: header.digest)
    guard let snapshot = directory.withLock({ $0.snapshots[id] }) else {
      guard header.isFull else { throw CheckpointError.base(held: 0, needed: header.base) }
      return try make(id, parent: parent, file, header, mark)
    }
    if snapshot.thread.perform({ snapshot.isApplying }),
      let log = try RedoLog.read(
        snapshot.directory, pageCount: snapshot.pageCount)
    {
      // An earlier call could not write all of what was committed.
      try write(log, to: snapshot)
    }
    guard let held = snapshot.thread.perform({ snapshot.standby }) else {
      throw refuse("another snapshot has that name")
    }
    if held != mark {
      guard held == StandbyMark(sequence: header.base, digest: header.baseDigest) else {
        throw CheckpointError.base(held: held.sequence, needed: header.base)
      }
      guard snapshot.ramBytes == header.ramBytes else { throw refuse("its RAM has another size") }
      try change(snapshot, file, header, mark)
    }
    guard let status = snapshot.thread.perform({ snapshot.standbyStatus }) else {
      throw refuse("it was dropped")
    }
    return status
  }

  // MARK: The first checkpoint

  private func make(
    _ id: String, parent: String, _ file: CheckpointFile, _ header: CheckpointHeader, _ mark: StandbyMark
  ) throws -> StandbyStatus {
    let thread = thread(forToken: "standby:\(id)")
    let since = monotonicNanoseconds()
    let sequence = directory.withLock {
      $0.nextSequence += 1
      return $0.nextSequence
    }
    let (draft, place) = ("\(paths.staged)/standby-\(id)", "\(paths.snapshots)/\(id)")
    try SnapshotFiles.create(
      draft,
      SnapshotManifest(
        originName: parent, originToken: "standby:\(id)", base: nil, ramBytes: header.ramBytes,
        sequence: sequence, since: since, standby: mark))
    do {
      let states = try PageStates(
        creating: SnapshotFiles.states(draft), pageCount: Page.count(ofBytes: header.ramBytes), initial: .zero
      )
      let cache = try MemoryFile.create(SnapshotFiles.pages(draft), bytes: header.ramBytes)
      try fill(cache, states, from: file.pages(header))
      let snapshot = Snapshot(
        directory: draft, thread: thread, sequence: sequence, states: states, cache: cache, origin: nil,
        originName: parent, base: nil, since: since)
      snapshot.id = id
      snapshot.standby = mark
      snapshot.recount()
      SnapshotFiles.remove(place)
      try systemCall("rename", subject: place) { Glibc.rename(draft, place) }
      snapshot.directory = place
      thread.perform { thread.snapshots.append(snapshot) }
      directory.withLock { $0.snapshots[id] = snapshot }
      return StandbyStatus(standby: id, ramBytes: header.ramBytes, mark: mark, clones: [], isInUse: false)
    } catch {
      SnapshotFiles.remove(draft)
      throw error
    }
  }

  private func fill(_ cache: MemoryFile, _ states: PageStates, from pages: PageStreamReader) throws {
    while let block = try pages.nextBlock() {
      guard block.changes == 0 else { throw CheckpointError.sizes("a full one has changes") }
      try block.forEachRun { run, bytes in
        let count = run.count * Page.bytes
        let written = try cache.write(
          at: UInt64(run.lowerBound) * UInt64(Page.bytes), from: bytes, count: count)
        guard written == count else { throw SystemError("pwrite", subject: "a standby", errno: ENOSPC) }
        states.fill(run, .present)
      }
    }
    _ = try pages.zeroRuns()
  }

  // MARK: The next ones

  private func change(
    _ snapshot: Snapshot, _ file: CheckpointFile, _ header: CheckpointHeader, _ mark: StandbyMark
  ) throws {
    let thread = snapshot.thread
    // From here on no VM is mapped on it.
    try thread.attempt { () throws(MemtapError) in
      let cause: String? =
        if snapshot.isInUse {
          "VMs or snapshots stand on it"
        } else if snapshot.isDropped { "it was dropped" } else { nil }
      if let cause {
        throw MemtapError(.state, operation: "receive", subject: snapshot.id, cause: cause)
      }
      snapshot.isApplying = true
    }
    let directory = snapshot.directory
    let log: RedoLog
    do {
      log = try RedoLog.begin(directory, mark)
      let zeros = try expand(file.pages(header), of: snapshot, into: log)
      try log.reserve(in: snapshot.cache)
      try log.commit(directory, zeros: zeros)
    } catch {
      thread.perform { snapshot.isApplying = false }
      throw error
    }
    try write(log, to: snapshot)
  }

  /// What was committed can not be taken back: a failure leaves it to be written again, by the next call or pager.
  private func write(_ log: RedoLog, to snapshot: Snapshot) throws {
    let thread = snapshot.thread
    var index = 0
    while index < log.numbers.count {
      index = try thread.perform { [index] in
        Result { () throws(SystemError) in
          var next = index
          while next < min(index + 64, log.numbers.count) {
            next = try log.apply(at: next, to: snapshot.cache, snapshot.states)
          }
          return next
        }
      }.get()
    }
    try thread.perform {
      Result { () throws(SystemError) in
        try log.applyZeros(to: snapshot.cache, snapshot.states)
        try log.finish(snapshot.directory)
        snapshot.recount()
        snapshot.standby = log.mark
        snapshot.isApplying = false
      }
    }.get()
  }

  /// Changes become whole pages: what they change is what the standby has now.
  private func expand(
    _ pages: PageStreamReader, of snapshot: Snapshot, into log: RedoLog
  ) throws -> [PageRange] {
    let base = UnsafeMutableRawPointer.allocate(byteCount: Page.bytes, alignment: 4096)
    defer { base.deallocate() }
    while let block = try pages.nextBlock() {
      for (index, number) in block.numbers.enumerated() where block.isChange(index) {
        let page = Int(number)
        try snapshot.cache.read(page..<page + 1, into: base)
        block.applyChange(index, to: base)
      }
      try log.append(block.numbers, block.bytes)
    }
    return try pages.zeroRuns()
  }

  /// What an earlier pager had begun to write. Before anyone sees the snapshot. False: it can not be had any more.
  func replayRedo(_ place: String) -> Bool {
    do throws(SystemError) {
      let manifest = try SnapshotFiles.readManifest(place)
      let pageCount = Page.count(ofBytes: manifest.ramBytes)
      guard let log = try RedoLog.read(place, pageCount: pageCount) else { return true }
      let states = try PageStates(opening: SnapshotFiles.states(place), pageCount: pageCount)
      let cache = try MemoryFile.open(SnapshotFiles.pages(place))
      var index = 0
      while index < log.numbers.count { index = try log.apply(at: index, to: cache, states) }
      try log.applyZeros(to: cache, states)
      try log.finish(place)
      return true
    } catch {
      tell("a standby was given up, for its last checkpoint could not be written: \(error)")
      return false
    }
  }
}

extension Snapshot {
  /// On the family's thread. Nil: it is no standby.
  fileprivate var standbyStatus: StandbyStatus? {
    guard let standby, !isDropped else { return nil }
    return StandbyStatus(
      standby: id, ramBytes: ramBytes, mark: standby, clones: clones.map(\.name), isInUse: isInUse)
  }

  /// On the family's thread.
  fileprivate var isInUse: Bool { !clones.isEmpty || thread.snapshots.contains { $0.base === self } }
}
