import GuestMemory

/// How far a snapshot's pages had come, by time: at most 512 samples, over all of its life.
package struct ArrivalHistory {
  package static let limit = 512
  /// Monotonic nanoseconds.
  var since: UInt64
  /// Doubles whenever every second sample is given up.
  private var interval: UInt64 = 50_000_000
  private var nextAt: UInt64
  package private(set) var samples: [SnapshotHistory.Sample] = []

  package init(since: UInt64) {
    self.since = since
    nextAt = since
  }

  @inline(__always)
  package func isDue(at now: UInt64) -> Bool { now >= nextAt }

  package mutating func add(_ sample: SnapshotHistory.Sample, at now: UInt64) {
    if samples.count == Self.limit {
      samples = stride(from: 1, to: Self.limit, by: 2).map { samples[$0] }
      interval *= 2
    }
    samples.append(sample)
    nextAt = now + interval
  }
}

extension Snapshot {
  /// After pages have come or faults were served.
  @inline(__always)
  func noteProgress(at now: UInt64) {
    if history.isDue(at: now) { history.add(sample(at: now), at: now) }
  }

  private func sample(at now: UInt64) -> SnapshotHistory.Sample {
    .init(
      microseconds: now > history.since ? (now - history.since) / 1000 : 0,
      pagesPresent: UInt64(presentCount), bytesReceived: remote?.bytesReceived ?? 0, faults: counters.faults)
  }

  /// On its family's thread: what was sampled, and how it is now.
  func historySoFar(at now: UInt64) -> SnapshotHistory {
    let last = sample(at: now)
    var samples = history.samples
    if samples.count == ArrivalHistory.limit { samples.removeLast() }
    samples.append(last)
    let pages = (0..<pageCount).map { page -> UInt8 in
      switch states[page] {
      case .atOrigin: remote == nil ? 1 : 0
      case .atBase: 1
      case .zero: PageArrival.zero.rawValue
      case .present: states.arrival(page).rawValue
      }
    }
    return SnapshotHistory(samples: samples, pages: pages)
  }

  var distribution: DistributionCounters? {
    guard remote != nil || service != nil else { return nil }
    var counters = DistributionCounters()
    remote?.count(into: &counters)
    service?.count(into: &counters)
    return counters
  }
}
