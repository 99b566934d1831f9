import Glibc
import GuestMemory
import LinuxSystem

/// The freeze of a running VM, in two halves:
///
///     idle ──arm──▶ armed ──commit──▶ a snapshot more
///                     └────disarm───▶ idle
///
/// While it is armed every page is protected; what the VM writes is recorded and let go. The commit, with the VM
/// stopped, protects exactly that again: its cost is what was written meanwhile, not the RAM's size.
extension Pager {
  package func arm(vm: String) throws(MemtapError) {
    let (region, shim) = try connected(vm, "arm")
    do {
      try region.slow.withLock { _ in try arm(region, shim) }
    } catch let error as MemtapError {
      throw error
    } catch {
      throw MemtapError("arm", vm, error)
    }
  }

  private func arm(_ region: Region, _ shim: ShimChannel) throws {
    let thread = region.thread
    if region.userfaultfd == nil {
      let made = try shim.request(.openUserfaultfd)
      thread.perform { region.userfaultfd = made }
    }
    let staged = try stage(region)
    let isNew = try thread.attempt { () throws(MemtapError) -> Bool in
      try self.begin(staged, of: region)
    }
    guard isNew else { return }
    do {
      try protectAll(region)
      try scan(region, into: staged.states)
    } catch {
      try disarmLocked(region)
      throw error
    }
    staged.recount()
    thread.perform { region.arming?.isComplete = true }
  }

  /// The files of the snapshot to be. Until the commit they lie aside.
  private func stage(_ region: Region) throws -> Snapshot {
    let base = region.base
    let sequence = directory.withLock {
      $0.nextSequence += 1
      return $0.nextSequence
    }
    let since = monotonicNanoseconds()
    let place = "\(paths.staged)/\(region.token.prefix(32))-\(sequence)"
    try SnapshotFiles.create(
      place,
      SnapshotManifest(
        originName: region.name, originToken: region.token, base: base?.id, ramBytes: region.byteCount,
        sequence: sequence, since: since))
    do {
      // Of a parent everything outside the data of its file is zero; of a clone, as in the snapshot it came from.
      let states = try PageStates(
        creating: SnapshotFiles.states(place), pageCount: region.pageCount,
        initial: base == nil ? .zero : .atBase)
      let cache = try MemoryFile.create(SnapshotFiles.pages(place), bytes: region.byteCount)
      let snapshot = Snapshot(
        directory: place, thread: region.thread, sequence: sequence, states: states, cache: cache,
        origin: region,
        originName: region.name, base: base, since: since)
      snapshot.workingSet.prepare(pageCount: region.pageCount)
      return snapshot
    } catch {
      SnapshotFiles.remove(place)
      throw error
    }
  }

  /// From here on everything that is lifted is recorded. False: it is armed already.
  private func begin(_ staged: Snapshot, of region: Region) throws(MemtapError) -> Bool {
    func refuse(_ cause: String) -> MemtapError {
      SnapshotFiles.remove(staged.directory)
      return MemtapError(.state, operation: "arm", subject: region.name, cause: cause)
    }
    if region.isGone { throw refuse("its QEMU has ended") }
    if let reason = region.doomReason { throw refuse("it has to be ended: \(reason)") }
    if region.arming != nil {
      SnapshotFiles.remove(staged.directory)
      return false
    }
    do throws(SystemError) { try region.thread.serve(region) } catch {
      SnapshotFiles.remove(staged.directory)
      throw MemtapError("arm", region.name, error)
    }
    region.arming = Region.Arming(staged: staged, lifted: PageBitmap(pageCount: region.pageCount))
    return true
  }

  private func protectAll(_ region: Region) throws {
    let (address, length) = (region.address(of: 0), region.byteCount)
    let mode: Userfaultfd.Mode = region.base == nil ? .writeProtect : .both
    if region.mode != mode {
      try region.userfaultfd!.register(address: address, length: length, mode: mode)
      region.mode = mode
    }
    try protect(0..<region.pageCount, of: region)
  }

  private func protect(_ pages: PageRange, of region: Region) throws(SystemError) {
    let address = region.address(of: pages.lowerBound)
    while true {
      switch region.userfaultfd!.protect(address: address, length: pages.byteCount) {
      case .done, .exists: return
      case .again: continue
      case .notRegistered: throw SystemError("UFFDIO_WRITEPROTECT", subject: region.name, errno: ENOENT)
      case .processGone: throw SystemError("UFFDIO_WRITEPROTECT", subject: region.name, errno: ESRCH)
      case let .refused(code): throw SystemError("UFFDIO_WRITEPROTECT", subject: region.name, errno: code)
      }
    }
  }

  /// Finds the pages that the VM has of its own. What becomes its own later was lifted, and so is recorded.
  private func scan(_ region: Region, into states: PageStates) throws {
    let attachment = region.attachment!
    guard region.base != nil else {
      try attachment.ramFile.forEachData { data in
        let first = Int(data.lowerBound / UInt64(Page.bytes))
        let end = min(Int((data.upperBound + UInt64(Page.bytes) - 1) / UInt64(Page.bytes)), states.pageCount)
        if first < end { states.fill(first..<end, .atOrigin) }
      }
      return
    }
    let swappedBefore = try attachment.memory.swappedBytes()
    let end = attachment.address + region.byteCount
    for run in try attachment.memory.privateRuns(in: attachment.address..<end) {
      let first = Int((run.addresses.lowerBound - attachment.address) / UInt64(Page.bytes))
      let end = Int((run.addresses.upperBound - attachment.address) / UInt64(Page.bytes))
      states.fill(first..<end, run.isZero ? .zero : .atOrigin)
    }
    let swappedAfter = try attachment.memory.swappedBytes()
    if swappedBefore + swappedAfter > 0 {
      throw MemtapError(
        .unsupported, operation: "arm", subject: region.name,
        cause:
          "the host has swapped out memory of this clone, so its own pages can not be told; turn swap off")
    }
  }

  package func commit(vm: String, snapshot id: String) throws(MemtapError) {
    let region = try region(vm, "commit")
    guard isFileName(id) else {
      throw MemtapError(.failed, operation: "commit", subject: vm, cause: "\(id) is no snapshot's name")
    }
    let thread = region.thread
    try thread.attempt { () throws(MemtapError) in
      if let known = self.directory.withLock({ $0.snapshots[id] }) {
        guard known.origin === region else {
          throw MemtapError(.state, operation: "commit", subject: vm, cause: "snapshot \(id) exists")
        }
        return
      }
      try self.commit(region, as: id)
    }
  }

  private func commit(_ region: Region, as id: String) throws(MemtapError) {
    guard let arming = region.arming, arming.isComplete else {
      throw MemtapError(.state, operation: "commit", subject: region.name, cause: "the VM is not armed")
    }
    let staged = arming.staged
    for run in arming.lifted.runs {
      staged.markWritten(run)
      do throws(SystemError) { try protect(run, of: region) } catch {
        throw MemtapError("commit", region.name, error)
      }
    }
    let place = "\(paths.snapshots)/\(id)"
    do throws(SystemError) {
      try systemCall("rename", subject: place) { Glibc.rename(staged.directory, place) }
    } catch {
      throw MemtapError("commit", region.name, error)
    }
    staged.directory = place
    staged.id = id
    region.newest?.newer = staged
    region.snapshots.append(staged)
    region.arming = nil
    region.thread.snapshots.append(staged)
    directory.withLock { $0.snapshots[id] = staged }
    region.workingSet.prepare(pageCount: region.pageCount)
    staged.history.since = monotonicNanoseconds()
  }

  package func disarm(vm: String) throws(MemtapError) {
    let region = try region(vm, "disarm")
    do {
      try region.slow.withLock { _ in try disarmLocked(region) }
    } catch {
      throw MemtapError("disarm", vm, error)
    }
  }

  /// What older snapshots need stays protected; of the rest each page is lifted when it is written, or all at once if
  /// there are none.
  private func disarmLocked(_ region: Region) throws {
    let isFree = region.thread.perform { () -> Bool in
      guard let arming = region.arming else { return false }
      SnapshotFiles.remove(arming.staged.directory)
      region.arming = nil
      return region.snapshots.isEmpty && !region.isGone
    }
    if isFree { try liftAll(region) }
  }

  /// No snapshot needs the origin any more: it runs at full speed again. Waits its turn; a new arm comes first.
  func release(_ region: Region) {
    region.slow.withLock { _ in
      let isFree = region.thread.perform {
        region.snapshots.isEmpty && region.arming == nil && !region.isGone
      }
      if isFree { try? liftAll(region) }  // fails only if its process has ended
    }
  }

  private func liftAll(_ region: Region) throws(SystemError) {
    guard let userfaultfd = region.userfaultfd, region.mode != .missing else { return }
    let (address, length) = (region.address(of: 0), region.byteCount)
    if region.base == nil {
      try userfaultfd.unregister(address: address, length: length)
      // The kernel wakes those who wait for a missing page only, not for a write-protected one.
      _ = userfaultfd.wake(address: address, length: length)
      region.mode = nil
    } else {
      var answer = UserfaultAnswer.again
      while answer == .again { answer = userfaultfd.lift(address: address, length: length) }
      try userfaultfd.register(address: address, length: length, mode: .missing)
      region.mode = .missing
    }
  }
}
