import GuestKernel
import GuestMemory
import LinuxSystem

/// What was free in the guest at a snapshot is never fetched: its clones get zeros. docs/avoidance.md.
extension Pager {
  package func survey(
    snapshot id: String, kernel: SurveyedKernel?
  ) throws(MemtapError) -> SnapshotLayout {
    let snapshot = try snapshot(id, "survey")
    let thread = snapshot.thread
    var avoided = 0
    var reason = "its guest does not tell"
    if let kernel {
      do {
        let places = RAMPlaces(bytes: snapshot.ramBytes, lowBytes: kernel.lowBytes)
        let free = try FreePages(
          in: FrozenMemory(snapshot: snapshot, places: places), places: places, note: kernel.note)
        avoided = avoid(free.pages, in: snapshot)
        reason = ""
      } catch {
        reason = "\(error)"
      }
    }
    var layout = thread.perform { snapshot.layout }
    layout.freePages = avoided
    layout.freeUnknown = reason
    return layout
  }

  /// In steps, between which faults are served. Answers how many pages need not be fetched that would have been.
  private func avoid(_ free: PageBitmap, in snapshot: Snapshot) -> Int {
    var avoided = 0
    var step: [PageRange] = []
    var count = 0
    func take() {
      let due = step
      avoided += snapshot.thread.perform { snapshot.avoid(due) }
      step.removeAll(keepingCapacity: true)
      count = 0
    }
    free.forEachRun { run in
      step.append(run)
      count += run.count
      if count >= 1 << 16 || step.count >= 1024 { take() }
    }
    take()
    return avoided
  }
}

/// What a clone did not fetch and the pager does not see.
extension Pager {
  /// Pages that devices filled whole, and those it has in memory of its own: huge pages count as a whole.
  func countAvoided(_ region: Region, in counters: inout MemtapStatistics.VMCounters) {
    let clone = region.thread.perform {
      region.isGone || region.base == nil ? nil : region.attachment.map { ($0, region.ownZeros) }
    }
    guard let (attachment, zeros) = clone else { return }
    if let count = try? region.shim?.countOverwritten() { counters.pagesOverwritten = count }
    for run in zeros {
      let start = attachment.address + UInt64(run.lowerBound) * UInt64(Page.bytes)
      let present = try? attachment.memory.privateRuns(in: start..<start + run.byteCount)
      counters.pagesZero += (present ?? []).reduce(0) { $0 + UInt64($1.addresses.count / Page.bytes) }
    }
  }
}

extension Snapshot {
  /// Nobody misses what these pages hold: they are zeros to the clones. What has been saved already stays. On the family's
  /// thread.
  fileprivate func avoid(_ free: [PageRange]) -> Int {
    let older = origin?.snapshots.filter { $0.sequence < sequence && !$0.isLost } ?? []
    var avoided = 0
    for page in free.joined() where states.isUnresolved(page) {
      if states[page] == .atOrigin, older.contains(where: { $0.states[page] == .atOrigin }) {
        if freeToClones == nil { freeToClones = PageBitmap(pageCount: pageCount) }
        freeToClones?.insert(page)
      } else {
        resolve(page, as: .zero)
      }
      avoided += 1
    }
    return avoided
  }
}
