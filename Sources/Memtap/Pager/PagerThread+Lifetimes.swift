import GuestMemory
import LinuxSystem

/// When snapshots go, and what goes with an origin.
extension PagerThread {
  /// Removes every snapshot that nobody needs any more. Calls `removed` for each, its files gone.
  func tidy(removed: (Snapshot) -> Void) {
    while let index = snapshots.firstIndex(where: { !isNeeded($0) }) {
      let snapshot = snapshots.remove(at: index)
      unlink(snapshot)
      closeNetwork(of: snapshot)
      SnapshotFiles.remove(snapshot.directory)
      removed(snapshot)
    }
  }

  /// A dropped snapshot is kept for its clones, for an older one of the same origin that may find pages in it, and for
  /// the snapshots of its clones.
  private func isNeeded(_ snapshot: Snapshot) -> Bool {
    !snapshot.isDropped || !snapshot.clones.isEmpty
      || snapshots.contains {
        $0.base === snapshot || ($0.newer === snapshot && !$0.isSaved && !snapshot.isAbsorbed)
      }
  }

  private func unlink(_ snapshot: Snapshot) {
    for older in snapshots where older.newer === snapshot { older.newer = snapshot.newer }
    snapshot.origin?.snapshots.removeAll { $0 === snapshot }
  }

  /// Loses `snapshot` for `reason`, and with it all that needs pages which only it or its origin would have had.
  func loseAll(from snapshot: Snapshot, _ reason: String) {
    mark(snapshot, lost: reason)
    loseUnreachable()
  }

  /// Why pages of it are nowhere: what it stands on was lost, or its origin has ended.
  private func lossReason(_ snapshot: Snapshot, missing: Int) -> String {
    var base = snapshot.base
    while let below = base {
      if below.remote != nil, let reason = below.lostReason { return reason }
      base = below.base
    }
    return "its origin \(snapshot.originName) has ended and \(missing) pages were not fetched"
  }

  /// Loses every snapshot that has a page which is nowhere to be had.
  func loseUnreachable() {
    for snapshot in snapshots where !snapshot.isLost {
      let missing = (0..<snapshot.pageCount).reduce(0) { $0 + (isReachable($1, in: snapshot) ? 0 : 1) }
      guard missing > 0 else { continue }
      mark(snapshot, lost: lossReason(snapshot, missing: missing))
    }
  }

  private func mark(_ snapshot: Snapshot, lost reason: String) {
    snapshot.lostReason = reason
    events.post(.snapshotLost(snapshot: snapshot.id, reason: reason))
    for clone in snapshot.clones { doom(clone, reason) }
    snapshot.service?.announceGone(reason)
  }

  private func isReachable(_ page: PageIndex, in snapshot: Snapshot) -> Bool {
    guard snapshot.states.isUnresolved(page) else { return true }
    switch source(of: page, in: snapshot) {
    case .zero, .cache, .origin, .remote: return true
    case .lost: return false
    case let .base(base): return isReachable(page, in: base)
    }
  }

  /// Whether the page would still be had if no origin lived any more.
  private func isSettled(_ page: PageIndex, in snapshot: Snapshot) -> Bool {
    guard snapshot.states.isUnresolved(page) else { return true }
    switch source(of: page, in: snapshot) {
    case .zero, .cache: return true
    case .origin, .remote, .lost: return false
    case let .base(base): return isSettled(page, in: base)
    }
  }

  func isWhole(_ snapshot: Snapshot) -> Bool {
    (0..<snapshot.pageCount).allSatisfy { isSettled($0, in: snapshot) }
  }

  /// Brings what only an origin has into the caches. What a base has settled is left there.
  func complete(_ range: PageRange, of snapshot: Snapshot) throws(PageTrouble) {
    arrival = .prefetched
    for page in range where snapshot.states.isUnresolved(page) {
      switch source(of: page, in: snapshot) {
      case .zero, .cache: break
      case .origin, .remote, .lost:
        try resolve(.window(around: page, size: tuning.fetchWindow, end: range.upperBound), of: snapshot)
      case let .base(base):
        try complete(page..<page + 1, of: base)
      }
    }
  }

  /// QEMU has ended. What it alone had is lost; the memory file of a parent is not.
  func end(_ region: Region) {
    guard !region.isGone else { return }
    region.isGone = true
    abandon(region)
    if let arming = region.arming {
      SnapshotFiles.remove(arming.staged.directory)
      region.arming = nil
    }
    region.base?.clones.removeAll { $0 === region }
    for snapshot in snapshots { snapshot.remote?.forget(region) }
    if !region.snapshots.isEmpty, region.base != nil || region.attachment == nil { loseUnreachable() }
  }
}
