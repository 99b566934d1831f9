import GuestMemory
import LinuxSystem
import Mcdist

/// The pages of a snapshot whose origin is on another host. On its family's thread.
///
/// A fault on a page that is not here asks for it and is put aside; when the page has been installed the fault is
/// served again, as if it came now. The order is that of every page: bytes into the cache, then its state, then the wake.
final class RemoteSource: PageSink, PageEndpoint {
  let description: RemoteSnapshot
  private unowned let snapshot: Snapshot
  private unowned let thread: PagerThread
  private var receiver: PageReceiver!

  private struct Waiter {
    unowned let region: Region
    var start: UInt64
  }
  private var waiters: [PageIndex: [Waiter]] = [:]
  private(set) var isPushing = false
  private(set) var pagesPushed: UInt64 = 0
  private var isWholeTold = false

  init(_ description: RemoteSnapshot, of snapshot: Snapshot, on thread: PagerThread) throws(SystemError) {
    self.description = description
    self.snapshot = snapshot
    self.thread = thread
    let origin = description.origin
    var configuration = PageReceiver.Configuration(
      origin: (origin.address, origin.port), group: (origin.group, origin.groupPort),
      localAddress: description.localAddress, key: origin.key, pageCount: snapshot.pageCount)
    configuration.transport = origin.transport.mode
    receiver = try PageReceiver(configuration, sink: self)
    snapshot.states.forEachRun(matching: 1 << PageState.present.rawValue | 1 << PageState.zero.rawValue) {
      receiver.markHere($0)
    }
  }

  // MARK: asked

  func wait(for page: PageIndex, _ region: Region, since start: UInt64) {
    waiters[page, default: []].append(Waiter(region: region, start: start))
    let neighbours = PageRange.window(around: page, size: thread.tuning.fetchWindow, end: snapshot.pageCount)
    receiver.demand(page, neighbours: neighbours, now: monotonicNanoseconds())
  }

  func prefetch(_ pages: PageRange) { receiver.prefetch(pages, now: monotonicNanoseconds()) }

  func setPush(_ isOn: Bool) {
    isPushing = isOn
    receiver.setPush(isOn, now: monotonicNanoseconds())
    tellIfWhole()
  }

  /// Faults of a VM that has ended are waited for by nobody.
  func forget(_ region: Region) {
    for (page, list) in waiters {
      let rest = list.filter { $0.region !== region }
      waiters[page] = rest.isEmpty ? nil : rest
    }
  }

  // MARK: PageSink

  func install(_ pages: PageRange, bytes: UnsafeRawPointer?, how: Arrival) {
    guard !snapshot.isLost else { return }
    snapshot.arrival = PageArrival(how)
    let before = snapshot.resolvedCount
    do throws(PageTrouble) {
      try thread.install(pages, bytes: bytes, into: snapshot)
    } catch {
      // Who waits for it waits until the daemon has ended it.
      thread.loseAll(from: snapshot, "no memory is left for its page cache")
      return
    }
    let count = UInt64(snapshot.resolvedCount - before)
    switch how {
    case .demanded: break
    case .prefetched: snapshot.counters.pagesPrefetched += count
    case .pushed: pagesPushed += count
    }
    for page in pages where !waiters.isEmpty {
      guard let list = waiters.removeValue(forKey: page) else { continue }
      for waiter in list where !waiter.region.isGone {
        thread.serveMissing(page, of: waiter.region, since: waiter.start, isFromAfar: true)
      }
    }
    snapshot.sample(at: monotonicNanoseconds())
    tellIfWhole()
  }

  func originGone(_ reason: String) {
    guard !snapshot.isSaved, !snapshot.isLost else { return }
    thread.loseAll(
      from: snapshot,
      "\(snapshot.unsavedCount) pages of its parent were not fetched from host \(description.host): \(reason)"
    )
  }

  private func tellIfWhole() {
    guard isPushing, !isWholeTold, snapshot.isSaved, !snapshot.isLost else { return }
    isWholeTold = true
    thread.events.post(.whole(snapshot: snapshot.id))
  }

  // MARK: PageEndpoint

  var descriptors: [OwnedDescriptor] { receiver.descriptors }
  func readable(now: UInt64) { receiver.readable(now: now) }
  func due(now: UInt64) { receiver.due(now: now) }
  func nextDeadline(now: UInt64) -> UInt64? { snapshot.isLost ? nil : receiver.nextDeadline(now: now) }

  // MARK: told

  var bytesReceived: UInt64 { receiver.bytesReceived }

  var counters: DistributionCounters {
    var counters = DistributionCounters()
    counters.bytesReceived = receiver.bytesReceived
    counters.requests = receiver.counters.requests
    counters.retransmitted = receiver.counters.retries
    counters.dropped = receiver.dropped
    counters.pagesPushed = pagesPushed
    counters.transport = receiver.transport
    counters.transportReason = receiver.transportReason
    counters.remoteFaultMicroseconds = snapshot.counters.remoteFaultTime.summary
    return counters
  }
}

extension PageArrival {
  init(_ how: Arrival) {
    self =
      switch how {
      case .demanded: .touched
      case .prefetched: .prefetched
      case .pushed: .pushed
      }
  }
}

extension PageTransport {
  var mode: TransportMode {
    switch self {
    case .auto: .auto
    case .unicast: .unicast
    case .multicast: .multicast
    }
  }
}

extension PagerThread {
  func wait(for page: PageIndex, from holder: Snapshot, _ region: Region, since start: UInt64) {
    holder.remote?.wait(for: page, region, since: start)
  }

  /// Puts pages that came from another host into the cache, by way of the held buffer (see `HeldBuffer`).
  func install(_ pages: PageRange, bytes: UnsafeRawPointer?, into snapshot: Snapshot) throws(PageTrouble) {
    guard let bytes else {
      for page in pages where snapshot.states.isUnresolved(page) { snapshot.resolve(page, as: .zero) }
      return
    }
    let step = buffer.count / Page.bytes
    var first = pages.lowerBound
    while first < pages.upperBound {
      guard snapshot.states.isUnresolved(first) else {
        first += 1
        continue
      }
      var end = first + 1
      while end < pages.upperBound, end - first < step, snapshot.states.isUnresolved(end) { end += 1 }
      buffer.start.copyMemory(
        from: bytes + (first - pages.lowerBound) * Page.bytes, byteCount: (end - first) * Page.bytes)
      try store(first..<end, into: snapshot)
      first = end
    }
  }
}
