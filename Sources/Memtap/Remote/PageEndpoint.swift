import GuestMemory
import LinuxSystem

/// Sockets that a pager thread serves beside its faults, after them.
protocol PageEndpoint: AnyObject {
  var descriptors: [OwnedDescriptor] { get }
  func readable(now: UInt64)
  func due(now: UInt64)
  func nextDeadline(now: UInt64) -> UInt64?
}

extension PagerThread {
  func add(_ endpoint: any PageEndpoint) throws(SystemError) {
    for descriptor in endpoint.descriptors { try listen(to: descriptor) }
    endpoints.append(endpoint)
  }

  func remove(_ endpoint: any PageEndpoint) {
    for descriptor in endpoint.descriptors { ignore(descriptor) }
    endpoints.removeAll { $0 === endpoint }
  }

  func nextDeadline() -> UInt64? {
    guard !endpoints.isEmpty else { return nil }
    let now = monotonicNanoseconds()
    var next: UInt64?
    for endpoint in endpoints {
      if let deadline = endpoint.nextDeadline(now: now) { next = min(next ?? deadline, deadline) }
    }
    return next
  }

  func serveEndpoints(heard: Bool) {
    let now = monotonicNanoseconds()
    for endpoint in endpoints {
      if heard { endpoint.readable(now: now) }
      if let deadline = endpoint.nextDeadline(now: now), deadline <= now { endpoint.due(now: now) }
    }
  }

  /// A snapshot is no more: nothing of it is served or asked for.
  func retire(_ snapshot: Snapshot) {
    if let served = snapshot.served {
      served.server.announceGone("the snapshot was removed")
      remove(served)
      snapshot.served = nil
    }
    if let remote = snapshot.remote { remove(remote) }
  }
}

/// Why a page is in a cache.
enum PageArrival: UInt8 {
  case none = 0
  case touched = 2
  case prefetched = 3
  case pushed = 4
  case saved = 6
}

/// A snapshot's way into the cache over time: at most 512 samples; when they are full every second one goes.
struct SampleLog {
  private static let limit = 512
  private(set) var samples: [SnapshotHistory.Sample] = []
  private let begin = monotonicNanoseconds()
  private var interval: UInt64 = 5_000_000
  private var next: UInt64 = 0

  @inline(__always)
  func isDue(_ now: UInt64) -> Bool { now >= next }

  mutating func add(_ sample: SnapshotHistory.Sample, at now: UInt64) {
    var sample = sample
    sample.microseconds = (now - begin) / 1000
    if samples.capacity < Self.limit { samples.reserveCapacity(Self.limit) }
    if samples.count == Self.limit {
      samples = samples.enumerated().filter { $0.offset % 2 == 1 }.map(\.element)
      interval *= 2
    }
    samples.append(sample)
    next = now + interval
  }
}
