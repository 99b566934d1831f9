import Glibc
import GuestMemory
import LinuxSystem

nonisolated(unsafe) private let zeroPage = UnsafeRawPointer(calloc(1, Page.bytes)!)

/// Where the bytes of an unresolved page are.
enum PageSource {
  case zero
  /// The cache file of another snapshot: a newer one of the same origin, or the base.
  case cache(Snapshot)
  /// The origin's own page, unchanged since the snapshot.
  case origin(Region)
  /// Unresolved at the base too: to be resolved there first.
  case base(Snapshot)
  /// On another host: to be asked for there.
  case remote(Snapshot)
  /// Nowhere any more.
  case lost

  /// Whether two neighbouring pages can be read together.
  func continues(_ other: PageSource) -> Bool {
    switch (self, other) {
    case (.zero, .zero), (.lost, .lost): true
    case let (.cache(a), .cache(b)), let (.base(a), .base(b)), let (.remote(a), .remote(b)): a === b
    case let (.origin(a), .origin(b)): a === b
    default: false
    }
  }
}

/// Why pages could not be brought in.
enum PageTrouble: Error {
  case noMemory
  /// The origin has ended and took the page with it.
  case originGone
  case failed(SystemError)
  /// The page is still on another host, the origin's of this snapshot. Nobody has asked for it yet.
  case pending(Snapshot)
}

/// Bringing pages into a snapshot's cache.
extension PagerThread {
  /// Resolves every page of the range that is unresolved. Those before the failing one are resolved when it throws.
  func resolve(_ range: PageRange, of snapshot: Snapshot) throws(PageTrouble) {
    var page = range.lowerBound
    while page < range.upperBound {
      guard snapshot.states.isUnresolved(page) else {
        page += 1
        continue
      }
      let source = source(of: page, in: snapshot)
      var end = page + 1
      while end < range.upperBound, end - page < buffer.count / Page.bytes, snapshot.states.isUnresolved(end),
        self.source(of: end, in: snapshot).continues(source)
      {
        end += 1
      }
      try bring(page..<end, from: source, into: snapshot)
      page = end
    }
  }

  /// Where the bytes of a page are, whether it is resolved or not.
  func place(of page: PageIndex, in snapshot: Snapshot) -> PageSource {
    switch snapshot.states[page] {
    case .zero: .zero
    case .present: .cache(snapshot)
    case .atOrigin, .atBase: source(of: page, in: snapshot)
    }
  }

  func source(of page: PageIndex, in snapshot: Snapshot) -> PageSource {
    if snapshot.states[page] == .atBase {
      guard let base = snapshot.base else { return .lost }
      switch base.states[page] {
      case .present: return .cache(base)
      case .zero: return .zero
      case .atOrigin, .atBase: return .base(base)
      }
    }
    if snapshot.remote != nil { return snapshot.isLost ? .lost : .remote(snapshot) }
    // A page that this snapshot lacks was not written before the next one was taken: look forward.
    var holder = snapshot
    while !holder.isLost {
      guard let newer = holder.newer else {
        guard let origin = snapshot.origin else { return .lost }
        // The memory file of a parent outlives its QEMU while we hold it, the private memory of a clone does not.
        return origin.isGone && (origin.base != nil || origin.attachment == nil) ? .lost : .origin(origin)
      }
      switch newer.states[page] {
      case .present: return .cache(newer)
      case .zero: return .zero
      case .atOrigin: holder = newer
      case .atBase: return .lost
      }
    }
    return .lost
  }

  private func bring(_ range: PageRange, from source: PageSource, into snapshot: Snapshot) throws(PageTrouble)
  {
    switch source {
    case .zero:
      for page in range { snapshot.resolve(page, as: .zero) }
    case .lost:
      throw .originGone
    case let .remote(holder):
      throw .pending(holder)
    case let .base(base):
      try resolve(range, of: base)
      try resolve(range, of: snapshot)
    case let .cache(holder):
      try load { (bytes) throws(SystemError) in try holder.cache.read(range, into: bytes) }
      try store(range, into: snapshot)
    case let .origin(region):
      guard region.attachment != nil else { throw .originGone }
      try load { (bytes) throws(SystemError) in try region.read(range, into: bytes) }
      try store(range, into: snapshot)
    }
  }

  /// Whole pages that came from elsewhere, each unresolved until now, in a run no longer than the buffer.
  func install(_ range: PageRange, from bytes: UnsafeRawPointer, into snapshot: Snapshot) throws(PageTrouble)
  {
    // Through the buffer: the kernel could move the pages of any other memory in mid-copy.
    memcpy(buffer.start, bytes, range.count * Page.bytes)
    try store(range, into: snapshot)
  }

  private func load(_ read: (UnsafeMutableRawPointer) throws(SystemError) -> Void) throws(PageTrouble) {
    do throws(SystemError) { try read(buffer.start) } catch {
      throw error.errno == ESRCH ? .originGone : .failed(error)
    }
  }

  /// Puts what is in the buffer into the cache: zeros as holes, all else with one write for each run.
  private func store(_ range: PageRange, into snapshot: Snapshot) throws(PageTrouble) {
    var index = 0
    while index < range.count {
      if isZero(index) {
        snapshot.resolve(range.lowerBound + index, as: .zero)
        index += 1
        continue
      }
      let first = index
      while index < range.count, !isZero(index) { index += 1 }
      let written: Int
      do throws(SystemError) {
        written = try snapshot.cache.write(
          at: UInt64(range.lowerBound + first) * UInt64(Page.bytes),
          from: buffer.start + first * Page.bytes, count: (index - first) * Page.bytes)
      } catch {
        throw .failed(error)
      }
      // A short write ends at a page: tmpfs gets the memory for a page before it copies to it.
      let whole = first + written / Page.bytes
      for done in first..<whole { snapshot.resolve(range.lowerBound + done, as: .present) }
      if whole < index { throw .noMemory }
    }
  }

  private func isZero(_ index: Int) -> Bool {
    memcmp(buffer.start + index * Page.bytes, zeroPage, Page.bytes) == 0
  }
}

extension MemoryFile {
  func read(_ pages: PageRange, into target: UnsafeMutableRawPointer) throws(SystemError) {
    try read(at: UInt64(pages.lowerBound) * UInt64(Page.bytes), into: target, count: pages.count * Page.bytes)
  }
}

extension Region {
  /// Pages as it has them now: of a parent from its memory file, of a clone those that are known to be present. It must
  /// have an attachment. ESRCH: a clone, and it has ended.
  func read(_ pages: PageRange, into target: UnsafeMutableRawPointer) throws(SystemError) {
    if base == nil {
      try attachment!.ramFile.read(pages, into: target)
    } else {
      try attachment!.memory.read(
        at: address(of: pages.lowerBound), into: target, count: pages.count * Page.bytes)
    }
  }
}
