import GuestMemory
import LinuxSystem

/// The RAM of a VM at one instant, on this host: the page cache that its clones map, and where the rest is.
///
/// A pre-image of page P is exactly the cache's page P: what the origin is about to overwrite is saved where clones
/// look for it. Owned by the thread of its family, which alone reads and writes everything mutable here.
final class Snapshot: @unchecked Sendable {
  /// Empty until the commit.
  var id = ""
  /// Of its family.
  let thread: PagerThread
  /// Grows with each arm, over restarts: the order of the snapshots of one origin.
  let sequence: UInt64
  let pageCount: Int
  var ramBytes: UInt64 { UInt64(pageCount) * UInt64(Page.bytes) }
  let states: PageStates
  /// Sparse, filled with pwrite only, whole pages, each once.
  let cache: MemoryFile
  /// The VM it was taken of. Nil after a restart of the pager that found it ended.
  var origin: Region?
  let originName: String
  /// What the origin was cloned from, if it is a clone.
  let base: Snapshot?
  /// The next snapshot of the same origin that is still kept.
  var newer: Snapshot?
  /// VMs whose RAM is mapped on the cache.
  var clones: [Region] = []
  /// Pages that were free in the guest and stay `atOrigin`, for an older snapshot looks for them through this one: zeros to
  /// clones. A pager that is started anew does not know them, and clones fetch them.
  var freeToClones: PageBitmap?
  /// What its origin's earlier clones asked for is being brought in.
  var hasWorkingSet = false
  /// Nobody will clone it any more.
  var isDropped: Bool {
    get { states.isDropped }
    set { states.isDropped = newValue }
  }
  /// Why it can not be cloned any more, and pages of it that are unresolved never will be had.
  var lostReason: String? {
    get { states.lostReason }
    set { states.lostReason = newValue }
  }
  var isLost: Bool { states.isLost }
  /// Its origin is on another host: pages `atOrigin` are to be had there.
  var remote: RemoteSource?
  /// It is a standby: of which checkpoint its pages are.
  var standby: StandbyMark?
  /// Its pages are between two checkpoints.
  var isApplying = false
  /// A checkpoint was made of it. An older snapshot then has of its own what it would find here, once it is dropped.
  var isCheckpoint = false
  var isAbsorbed = false
  /// It is served to other hosts.
  var service: PageService?
  var history: ArrivalHistory
  var readAhead: ReadAhead
  /// What its clones, here and on other hosts, asked for first.
  var workingSet = WorkingSet()
  /// Of its pages those that the host with the VM's standby lacks; nil: not known, or there is none.
  var writtenSinceStandby: PageBitmap?
  /// Pages `atOrigin`: they need the origin or a newer snapshot.
  var unsavedCount = 0
  /// Pages in the cache.
  var presentCount = 0
  /// Pages resolved since the pager began.
  private(set) var resolvedCount = 0
  var counters = PagingCounters()
  /// Of its files: `pages`, `states`, and what `SnapshotFiles` keeps there.
  var directory: String

  init(
    directory: String, thread: PagerThread, sequence: UInt64, states: PageStates, cache: MemoryFile,
    origin: Region?,
    originName: String, base: Snapshot?, since: UInt64
  ) {
    history = ArrivalHistory(since: since)
    self.directory = directory
    self.thread = thread
    self.sequence = sequence
    pageCount = states.pageCount
    readAhead = ReadAhead(pageCount: states.pageCount)
    self.states = states
    self.cache = cache
    self.origin = origin
    self.originName = originName
    self.base = base
  }

  deinit { counters.deallocate() }

  /// Counts anew after the states were changed as a whole.
  func recount() {
    unsavedCount = states.count(.atOrigin)
    presentCount = states.count(.present)
  }

  /// Before the commit: these pages are the origin's own, whatever they were at the scan.
  func markWritten(_ range: PageRange) {
    for page in range where states[page] != .atOrigin {
      states[page] = .atOrigin
      unsavedCount += 1
    }
  }

  /// Records that the page is in the cache, or is zero. The bytes must be there before.
  @inline(__always)
  func resolve(_ page: PageIndex, as state: PageState) {
    if states[page] == .atOrigin { unsavedCount -= 1 }
    if state == .present { presentCount += 1 }
    resolvedCount += 1
    states.note(page, state == .zero ? .zero : thread.arrival)
    states[page] = state
  }

  /// Clones get zeros for it, though it is not resolved.
  @inline(__always)
  func isFree(_ page: PageIndex) -> Bool {
    guard let freeToClones, states.isUnresolved(page) else { return false }
    return freeToClones.contains(page)
  }

  /// No page needs its origin any more.
  var isSaved: Bool { unsavedCount == 0 }

  /// Pages that are not known to be zero.
  var existing: PageBitmap {
    var pages = PageBitmap(pageCount: pageCount)
    states.forEachRun(matching: 1 << PageState.atOrigin.rawValue | 1 << PageState.present.rawValue) {
      pages.insert(contentsOf: $0)
    }
    if let base, states.contains(.atBase) {
      let below = base.existing
      states.forEachRun(matching: 1 << PageState.atBase.rawValue) { pages.formUnion(below, in: $0) }
    }
    freeToClones?.forEachRun { pages.remove(contentsOf: $0) }
    return pages
  }

  /// Runs of zeros of 2 MiB and more, at most so many that a process can have a mapping for each and its neighbours.
  var longZeros: [PageRange] {
    var runs: [PageRange] = []
    states.forEachRun(matching: 1 << PageState.zero.rawValue) {
      if $0.count >= 512, runs.count < 4096 { runs.append($0) }
    }
    return runs
  }

  var layout: SnapshotLayout {
    var runs: [SnapshotLayout.PageRun] = []
    existing.forEachRun { runs.append(.init(first: UInt32($0.lowerBound), count: UInt32($0.count))) }
    return SnapshotLayout(ramBytes: ramBytes, existing: runs)
  }
}
