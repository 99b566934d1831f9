import GuestMemory

/// The windows of pages that the clones of an origin asked for first, in their order: what its next clones will ask
/// for as well. docs/paging.md, "Who does what on a fault".
struct WorkingSet {
  /// Pages of a window, a power of two.
  static let window = 2
  /// 8,192 windows are 64 MiB: what other hosts are sent at once.
  private static let limit = 8192
  /// Of these, what is brought in for clones on this host, in some 5 ms: the rest is here within microseconds of a fault.
  fileprivate static let limitHere = 2048

  private(set) var windows: [Int] = []
  private var isRecorded: [Bool] = []

  /// Makes room, so that recording does not allocate.
  mutating func prepare(pageCount: Int) {
    guard isRecorded.isEmpty else { return }
    windows.reserveCapacity(Self.limit)
    isRecorded = [Bool](repeating: false, count: (pageCount + Self.window - 1) / Self.window)
  }

  @inline(__always)
  @discardableResult
  mutating func record(_ page: PageIndex) -> Bool {
    let window = page / Self.window
    guard windows.count < Self.limit, window < isRecorded.count, !isRecorded[window] else { return false }
    isRecorded[window] = true
    windows.append(window)
    return true
  }

  static func pages(ofWindow window: Int, end: PageIndex) -> PageRange {
    window * Self.window..<min((window + 1) * Self.window, end)
  }
}

extension PagerThread {
  /// A clone asked for a page that was not in the cache, or it was brought in for the sake of one that was.
  @inline(__always)
  @discardableResult
  func recordDemand(_ page: PageIndex, of snapshot: Snapshot) -> Bool {
    snapshot.origin?.workingSet.record(page)
    return snapshot.workingSet.record(page)
  }

  /// Brings the working set of the origin's earlier clones into its new snapshot, a few windows at a time: faults are
  /// served in between. What can not be had now will be asked for if it is needed.
  func bringWorkingSet(into snapshot: Snapshot, from first: Int = 0) {
    guard let origin = snapshot.origin, !snapshot.isLost, !origin.isGone else { return }
    let windows = origin.workingSet.windows.prefix(WorkingSet.limitHere)
    let end = min(first + 32, windows.count)
    guard first < end else { return }
    let before = snapshot.resolvedCount
    for window in windows[first..<end] {
      let pages = WorkingSet.pages(ofWindow: window, end: snapshot.pageCount)
      arrival = .prefetched
      do throws(PageTrouble) { try resolve(pages, of: snapshot) } catch {
        guard case .pending = error else { return }
        askAhead(pages, of: snapshot)
      }
    }
    snapshot.counters.pagesPrefetched += UInt64(snapshot.resolvedCount - before)
    post { self.bringWorkingSet(into: snapshot, from: end) }
  }
}
