import Glibc
import GuestMemory

/// A snapshot of another host's VM whose standby is here: what was not written since the standby's checkpoint is as
/// there (`atBase`), and only the rest comes over the network.
extension Pager {
  /// Where most of the snapshot is.
  func warmBase(of remote: RemoteSnapshot) -> Snapshot? {
    guard let warm = remote.warm else { return nil }
    return directory.withLock { $0.snapshots[warm.standby] }
  }

  package func written(_ snapshot: String, since base: String) throws(MemtapError) -> SnapshotLayout {
    let (snapshot, before) = (try self.snapshot(snapshot, "written"), try self.snapshot(base, "written"))
    try awaitTakeOver("written", snapshot.id)
    guard before.thread === snapshot.thread, before !== snapshot, before.originName == snapshot.originName
    else {
      throw MemtapError(
        .state, operation: "written", subject: snapshot.id, cause: "\(base) is of another VM, or the same")
    }
    // A checkpoint that was taken after the fork, and came before it.
    let (older, newer) = before.sequence < snapshot.sequence ? (before, snapshot) : (snapshot, before)
    var pages = try snapshot.thread.attempt { () throws(MemtapError) -> PageBitmap in
      guard !before.isLost, !snapshot.isLost else {
        throw MemtapError(.state, operation: "written", subject: snapshot.id, cause: "pages of it were lost")
      }
      return newer.changed(since: older)
    }
    // Beside a page that was written others were saved, and came to nothing.
    var same = PageBitmap(pageCount: pages.pageCount)
    let areCompared = snapshot.forEachPage(of: pages, but: nil, since: before) { page, now, then in
      if let then, memcmp(now, then, Page.bytes) == 0 { same.insert(contentsOf: page..<page + 1) }
    }
    if areCompared { same.runs.forEach { pages.remove(contentsOf: $0) } }
    // What is zeros to the standby may be in use now.
    do {
      let free = try FreeAtStandby.read(before.directory, pageCount: before.pageCount)
      pages.formUnion(free, in: 0..<pages.pageCount)
    } catch {
      throw MemtapError("written", snapshot.id, error)
    }
    let written = pages
    snapshot.thread.perform {
      snapshot.writtenSinceStandby = written
      snapshot.service?.offerWorkingSet()
    }
    return SnapshotLayout(
      ramBytes: snapshot.ramBytes,
      existing: pages.runs.map { .init(first: UInt32($0.lowerBound), count: UInt32($0.count)) })
  }
}

extension Snapshot {
  /// Whether it is just what the origin's host thinks it is. On the family's thread.
  func isWarm(for remote: RemoteSnapshot) -> Bool {
    !isApplying && !isDropped && !isLost && ramBytes == remote.ramBytes && standby == remote.warm?.mark
  }
}

extension RemoteSnapshot.Warm {
  /// Pages that exist and differ come from the origin.
  func markWritten(in states: PageStates) {
    func number(_ at: Int) -> Int {
      Int(written[at..<at + 4].reversed().reduce(0 as UInt32) { $0 << 8 | UInt32($1) })
    }
    for at in stride(from: 0, to: written.count - 7, by: 8) {
      let (first, count) = (number(at), number(at + 4))
      guard first < states.pageCount else { continue }
      for page in first..<min(first + count, states.pageCount) where states[page] == .atBase {
        states[page] = .atOrigin
      }
    }
  }
}
