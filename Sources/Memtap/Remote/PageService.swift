import GuestMemory
import LinuxSystem
import Mcdist

/// Serves one snapshot of this host to others. On its family's thread only, which orders what it reads with what the
/// origin writes.
///
/// A page that is served is not stored: the origin's memory is not doubled by its clones on other hosts.
final class PageService {
  unowned let snapshot: Snapshot
  /// What another host needs to get the pages.
  private(set) var origin: PageOrigin
  /// Nil: closed.
  private var server: PageServer?
  private(set) var descriptors: [OwnedDescriptor] = []
  /// New windows of the working set since it was last offered, and when that was.
  private var hasNewDemand = false
  private var offeredAt: UInt64 = 0
  /// Pages were lost, and that was announced.
  private var isGone = false

  /// `known`: as an earlier pager served it. From now on requests are answered.
  init(
    of snapshot: Snapshot, address: String, transport: PageTransport, key: [UInt8], as known: PageOrigin?
  ) throws(SystemError) {
    self.snapshot = snapshot
    origin = PageOrigin(address: address, port: 0, group: "", groupPort: 0, key: key, transport: transport)
    snapshot.workingSet.prepare(pageCount: snapshot.pageCount)
    let server = try PageServer(
      .init(
        address: address, transport: .init(transport), key: key, pageCount: snapshot.pageCount,
        workingSet: Self.workingSet(of: snapshot), warmWorkingSet: Self.warmWorkingSet(of: snapshot),
        port: known?.port, group: known?.group, groupPort: known?.groupPort),
      provider: self)
    self.server = server
    descriptors = server.descriptors
    origin = PageOrigin(
      address: server.origin.address, port: server.origin.port, group: server.origin.group,
      groupPort: server.origin.groupPort, key: key, transport: transport)
    try snapshot.thread.serve(self)
  }

  /// Tells all receivers that no page will come any more.
  func announceGone(_ reason: String) {
    guard !isGone else { return }
    isGone = true
    server?.announceGone(reason, now: monotonicNanoseconds())
  }

  /// Ends it; `reason` for those who still receive.
  func close(_ reason: String) {
    announceGone(reason)
    snapshot.thread.abandon(self)
    server = nil
    descriptors = []
  }

  /// What earlier clones of the origin asked for first, and then those of this snapshot.
  private static func workingSet(of snapshot: Snapshot) -> [PageRange] {
    var windows = snapshot.workingSet.windows
    let own = Set(windows)
    windows += (snapshot.origin?.workingSet.windows ?? []).filter { !own.contains($0) }
    return windows.map { WorkingSet.pages(ofWindow: $0, end: snapshot.pageCount) }
  }

  /// Without what the standby's host has.
  private static func warmWorkingSet(of snapshot: Snapshot) -> [PageRange]? {
    guard let written = snapshot.writtenSinceStandby else { return nil }
    return workingSet(of: snapshot).flatMap { window in
      window.filter { written.contains($0) }.map { $0..<$0 + 1 }
    }
  }

  /// It has become known what the standby's host has.
  func offerWorkingSet() {
    server?.offer(Self.workingSet(of: snapshot), warm: Self.warmWorkingSet(of: snapshot))
  }
}

extension PageService: NetworkEndpoint {
  var nextDeadline: UInt64? { server?.nextDeadline }

  func readable(now: UInt64) {
    server?.readable(now: now)
    offerWorkingSet(now: now)
  }

  func due(now: UInt64) {
    server?.due(now: now)
    offerWorkingSet(now: now)
  }

  /// For the hosts that come later. Ten times a second at most.
  private func offerWorkingSet(now: UInt64) {
    guard hasNewDemand, now >= offeredAt + 100_000_000 else { return }
    hasNewDemand = false
    offeredAt = now
    offerWorkingSet()
  }
}

extension PageService: PageProvider {
  func read(_ page: PageIndex, into buffer: UnsafeMutableRawPointer) -> PageAnswer {
    let answer = snapshot.thread.read(page, of: snapshot, into: buffer)
    if case .lost = answer, !snapshot.isLost {
      // After this call of the server's: it announces the end to all.
      let snapshot = snapshot
      snapshot.thread.post { snapshot.thread.loseUnreachable() }
    }
    return answer
  }

  func requested(_ page: PageIndex) {
    if snapshot.thread.recordDemand(page, of: snapshot) { hasNewDemand = true }
  }
}

extension PageService {
  func count(into counters: inout DistributionCounters) {
    guard let seen = server?.counters else { return }
    counters.bytesSent += seen.bytesSent
    counters.requests += seen.requests
    counters.served += seen.served
    counters.lockstepSuppressed += seen.lockstepSuppressed
    counters.retransmitted += seen.retransmitted
    counters.rateLimitBytesPerSecond = seen.rateLimitBytesPerSecond
    counters.dropped += seen.dropped
    if counters.transport.isEmpty { counters.transport = origin.transport.rawValue }
  }
}

extension PagerThread {
  /// The page as of the snapshot, wherever it is. Nothing is stored.
  func read(_ page: PageIndex, of snapshot: Snapshot, into buffer: UnsafeMutableRawPointer) -> PageAnswer {
    let pages = page..<page + 1
    switch place(of: page, in: snapshot) {
    case .zero: return .zero
    case .lost: return .lost
    case let .cache(holder):
      return answer(page) { () throws(SystemError) in try holder.cache.read(pages, into: buffer) }
    case let .base(base): return read(page, of: base, into: buffer)
    case let .remote(holder):
      holder.remote?.prefetch(pages)
      return .pending
    case let .origin(region):
      // After a restart of the pager the origin may not be back: its page is protected until it is.
      guard region.isServed, region.attachment != nil else { return .pending }
      return answer(page, isQuiet: region.base != nil) { () throws(SystemError) in
        try region.read(pages, into: buffer)
      }
    }
  }

  /// `isQuiet`: a clone may have ended; its shim's socket tells that in a moment, and then what is lost is known.
  private func answer(
    _ page: PageIndex, isQuiet: Bool = false, _ read: () throws(SystemError) -> Void
  ) -> PageAnswer {
    do throws(SystemError) {
      try read()
      return .bytes
    } catch {
      if !isQuiet { tell("page \(page) could not be read for another host: \(error)") }
      return .pending
    }
  }

  /// Asks ahead of need for those pages of the range that are on another host.
  func askAhead(_ range: PageRange, of snapshot: Snapshot) {
    var page = range.lowerBound
    while page < range.upperBound {
      guard let holder = remoteHolder(of: page, in: snapshot) else {
        page += 1
        continue
      }
      let first = page
      while page < range.upperBound, remoteHolder(of: page, in: snapshot) === holder { page += 1 }
      holder.remote?.prefetch(first..<page)
    }
  }

  /// The snapshot whose origin, on another host, has the page. Nil: none.
  private func remoteHolder(of page: PageIndex, in snapshot: Snapshot) -> Snapshot? {
    guard snapshot.states.isUnresolved(page) else { return nil }
    switch source(of: page, in: snapshot) {
    case let .remote(holder): return holder
    case let .base(base): return remoteHolder(of: page, in: base)
    case .zero, .cache, .origin, .lost: return nil
    }
  }

  /// No page of the snapshot will come from its host any more. What is here stays right; who needs more must end.
  func originGone(_ snapshot: Snapshot, _ reason: String) {
    guard let remote = snapshot.remote, !snapshot.isLost, !snapshot.isSaved else { return }
    loseAll(
      from: snapshot,
      "its origin \(snapshot.originName) on host \(remote.configuration.host) is gone: \(reason)")
  }
}
