import GuestMemory
import LinuxSystem
import Mcdist

/// Where a snapshot's pages come from if its origin is on another host: its receiver, and who waits for which page.
/// On its family's thread only.
///
///     fault ──▶ await: who waits is noted, the page asked for ─ ─ ▶ install: into the cache, state, wake
///
/// The order is that of every page: bytes, state, wake. A page that does not come wakes nobody.
final class RemoteSource {
  unowned let snapshot: Snapshot
  let configuration: RemoteSnapshot
  private var thread: PagerThread { snapshot.thread }
  private(set) var isPushed: Bool
  /// Nil: every page is here, or none will come any more.
  private(set) var receiver: PageReceiver?
  /// The receiver's sockets, kept in use until its turn has ended.
  private(set) var descriptors: [OwnedDescriptor] = []
  /// What earlier receivers counted, and the way of transport of the last one.
  private(set) var earlierCounters = PageReceiver.Counters()
  private(set) var finalTransport = ("", "")
  private(set) var pagesPushed: UInt64 = 0
  /// From a fault to its wake.
  var faultTime = LatencyHistogram()

  /// Pages came for which there was no memory: this receiver does not ask for them again, a new one does.
  private var hasRefused = false

  private struct Waiter {
    var page: PageIndex
    var region: Region
    var start: UInt64
  }
  /// As many as there are virtual CPUs that wait.
  private var waiters: [Waiter] = []
  /// The pages that someone waits for.
  private var awaited: PageBitmap
  /// Taken from `waiters` while they are woken.
  private var woken: [Waiter] = []

  init(of snapshot: Snapshot, as configuration: RemoteSnapshot) {
    self.snapshot = snapshot
    self.configuration = configuration
    isPushed = configuration.push
    awaited = PageBitmap(pageCount: snapshot.pageCount)
    waiters.reserveCapacity(64)
    woken.reserveCapacity(64)
  }

  deinit { faultTime.deallocate() }

  /// Pages can be had from now on. Does nothing if none is needed any more.
  func open() throws(SystemError) {
    guard !snapshot.isSaved, !snapshot.isLost else { return }
    let origin = configuration.origin
    let receiver = try PageReceiver(
      .init(
        origin: .init(
          address: origin.address, port: origin.port, group: origin.group, groupPort: origin.groupPort),
        transport: .init(origin.transport), key: origin.key, localAddress: configuration.localAddress,
        pageCount: snapshot.pageCount, isWarm: snapshot.base != nil),
      sink: self)
    snapshot.states.forEachRun(matching: ~(1 << PageState.atOrigin.rawValue)) { receiver.markPresent($0) }
    descriptors = receiver.descriptors
    self.receiver = receiver
    do throws(SystemError) { try thread.serve(self) } catch {
      close()
      throw error
    }
    receiver.greet(now: monotonicNanoseconds())
    if isPushed { receiver.setPush(true, now: monotonicNanoseconds()) }
  }

  /// Nothing is received any more; who waits is not woken.
  func close() {
    guard let receiver else { return }
    earlierCounters = counted
    finalTransport = (receiver.transport.rawValue, receiver.transportReason)
    thread.abandon(self)
    self.receiver = nil
    descriptors = []
  }

  /// Asks again for what was refused. Not from within a call of the receiver's.
  private func reopen() {
    hasRefused = false
    close()
    do throws(SystemError) { try open() } catch {
      thread.originGone(snapshot, "its pages can not be received any more: \(error)")
    }
    for waiter in waiters { receiver?.demand(waiter.page..<waiter.page + 1, now: monotonicNanoseconds()) }
  }

  /// Whether pages were refused for lack of memory since it was asked last. They are asked for again from now on.
  func takeRefusal() -> Bool {
    guard hasRefused else { return false }
    reopen()
    return true
  }

  /// Bring all of it here, or only what is asked for.
  func setPush(_ isOn: Bool) {
    isPushed = isOn
    receiver?.setPush(isOn, now: monotonicNanoseconds())
  }

  var isPushedWhole: Bool { isPushed && snapshot.isSaved }
  /// No page needs the origin any more.
  private var isFinished: Bool { snapshot.isSaved || snapshot.isLost }

  // MARK: Asking

  /// A fault of `region`, read at `start`, waits for a page that is not here: asks for it at once.
  func `await`(_ page: PageIndex, for region: Region, since start: UInt64) {
    if hasRefused { reopen() }
    guard let receiver else {
      thread.doom(
        region, snapshot.lostReason ?? "page \(page) is on host \(configuration.host), out of reach")
      return
    }
    waiters.append(Waiter(page: page, region: region, start: start))
    // Also when another one waits already: the receiver then does nothing but raise its urgency.
    awaited.insert(page)
    receiver.demand(page..<page + 1, now: monotonicNanoseconds())
  }

  func prefetch(_ pages: PageRange) { receiver?.prefetch(pages, now: monotonicNanoseconds()) }

  /// It has ended: it waits for nothing any more.
  func forget(_ region: Region) { waiters.removeAll { $0.region === region } }

  // MARK: Waking

  /// Those who wait for a page of the range, of which none is missing any more, go on.
  private func wake(_ range: PageRange) {
    guard !waiters.isEmpty, take(range) else { return }
    for waiter in woken where !waiter.region.isGone {
      thread.serveMissing(waiter.page, of: waiter.region, since: waiter.start, isAwaited: true)
      faultTime.record(nanoseconds: monotonicNanoseconds() - waiter.start)
      if waiter.region.base === snapshot { waiter.region.counters.pagesFetched += 1 }
    }
    woken.removeAll(keepingCapacity: true)
  }

  /// Those who wait for a page of the range must end.
  private func doom(_ range: PageRange, _ reason: String) {
    guard take(range) else { return }
    for waiter in woken { thread.doom(waiter.region, reason) }
    woken.removeAll(keepingCapacity: true)
  }

  /// Moves those who wait for a page of the range to `woken`. False: there are none.
  private func take(_ range: PageRange) -> Bool {
    guard range.contains(where: { awaited.contains($0) }) else { return false }
    awaited.remove(contentsOf: range)
    waiters.removeAll { waiter in
      guard range.contains(waiter.page) else { return false }
      woken.append(waiter)
      return true
    }
    return !woken.isEmpty
  }
}

// MARK: What the receiver brings

extension RemoteSource: PageSink {
  func isMissing(_ page: PageIndex) -> Bool { snapshot.states[page] == .atOrigin && !snapshot.isLost }

  func install(_ pages: PageRange, bytes: UnsafeRawPointer?, how: Arrival) -> Bool {
    guard pages.lowerBound >= 0, pages.upperBound <= snapshot.pageCount, !snapshot.isLost else {
      return false
    }
    thread.arrival =
      switch how {
      case .demanded: .touched
      case .prefetched: .prefetched
      case .pushed: .pushed
      }
    let before = snapshot.unsavedCount
    let isDone = installMissing(pages, bytes)
    let count = UInt64(before - snapshot.unsavedCount)
    switch how {
    case .demanded: snapshot.counters.pagesFetched += count
    case .prefetched: snapshot.counters.pagesPrefetched += count
    case .pushed: pagesPushed += count
    }
    if isDone { wake(pages) }
    snapshot.noteProgress(at: monotonicNanoseconds())
    return isDone
  }

  /// Page by page as they are missing: what is in the cache is never written again.
  private func installMissing(_ pages: PageRange, _ bytes: UnsafeRawPointer?) -> Bool {
    let limit = thread.buffer.count / Page.bytes
    var page = pages.lowerBound
    while page < pages.upperBound {
      guard snapshot.states[page] == .atOrigin else {
        page += 1
        continue
      }
      var end = page + 1
      while end < pages.upperBound, end - page < limit, snapshot.states[end] == .atOrigin { end += 1 }
      if let bytes {
        do throws(PageTrouble) {
          try thread.install(
            page..<end, from: bytes + (page - pages.lowerBound) * Page.bytes, into: snapshot)
        } catch {
          refuse(pages, error)
          return false
        }
      } else {
        for zero in page..<end { snapshot.resolve(zero, as: .zero) }
      }
      page = end
    }
    return true
  }

  /// What could not be kept is asked for again if it is needed; who needs it now can not go on.
  private func refuse(_ pages: PageRange, _ trouble: PageTrouble) {
    hasRefused = true
    let cause =
      if case let .failed(error) = trouble {
        "a page from another host could not be kept: \(error)"
      } else {
        "no memory is left for the page cache of its snapshot"
      }
    for page in pages {
      if isMissing(page) { doom(page..<page + 1, cause) } else { wake(page..<page + 1) }
    }
    if isPushed {
      tell("bringing all of snapshot \(snapshot.id) here was ended: \(cause)")
      // Not through setPush: this is a call of the receiver's.
      isPushed = false
      let snapshot = snapshot
      thread.post { snapshot.remote?.setPush(false) }
    }
  }

  func originGone(_ reason: String) { thread.originGone(snapshot, reason) }
}

// MARK: Its sockets

extension RemoteSource: NetworkEndpoint {
  var nextDeadline: UInt64? { receiver?.nextDeadline }

  func readable(now: UInt64) {
    receiver?.readable(now: now)
    finishIfDone()
  }

  func due(now: UInt64) {
    receiver?.due(now: now)
    finishIfDone()
  }

  /// Not from within a call of the receiver's.
  func finishIfDone() {
    guard isFinished, receiver != nil else { return }
    close()
    waiters.removeAll()
    awaited.removeAll()
    if isPushedWhole { thread.events.post(.whole(snapshot: snapshot.id)) }
  }
}
