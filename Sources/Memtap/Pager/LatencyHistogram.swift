import Glibc

/// Durations in a fixed set of buckets, four to an octave (an error of at most 19 %), from 64 ns to 70 s.
/// Recording allocates nothing. One thread at a time.
package struct LatencyHistogram {
  private static let bucketCount = 124
  private let buckets: UnsafeMutablePointer<UInt32>
  private(set) var maxNanoseconds: UInt64 = 0

  package init() {
    buckets = .allocate(capacity: Self.bucketCount)
    buckets.initialize(repeating: 0, count: Self.bucketCount)
  }

  /// The owner's deinit calls this.
  package func deallocate() { buckets.deallocate() }

  package mutating func record(nanoseconds: UInt64) {
    buckets[Self.bucket(nanoseconds)] &+= 1
    if nanoseconds > maxNanoseconds { maxNanoseconds = nanoseconds }
  }

  /// Rounded up to whole microseconds, from the upper edge of the bucket, never above the largest one seen.
  package var summary: LatencySummary {
    LatencySummary(p50: percentile(50), p99: percentile(99), max: Self.microseconds(maxNanoseconds))
  }

  private func percentile(_ percent: UInt64) -> UInt64 {
    var total: UInt64 = 0
    for index in 0..<Self.bucketCount { total += UInt64(buckets[index]) }
    if total == 0 { return 0 }
    let rank = (total * percent + 99) / 100
    var seen: UInt64 = 0
    for index in 0..<Self.bucketCount {
      seen += UInt64(buckets[index])
      if seen >= rank { return Self.microseconds(min(Self.upperEdge(index), maxNanoseconds)) }
    }
    return Self.microseconds(maxNanoseconds)
  }

  private static func microseconds(_ nanoseconds: UInt64) -> UInt64 {
    nanoseconds / 1000 + (nanoseconds % 1000 == 0 ? 0 : 1)
  }

  /// 64 ns × 2^(octave) × (1 + quarter/4): the octave and the two bits below the highest one.
  private static func bucket(_ nanoseconds: UInt64) -> Int {
    let scaled = nanoseconds >> 4
    if scaled < 4 { return 0 }
    let highest = 63 - scaled.leadingZeroBitCount
    let quarter = Int(scaled >> UInt64(highest - 2)) & 3
    return min((highest - 2) * 4 + quarter, bucketCount - 1)
  }

  private static func upperEdge(_ bucket: Int) -> UInt64 {
    (UInt64(4 + bucket % 4 + 1) << UInt64(bucket / 4)) << 4
  }
}

/// Monotonic time in nanoseconds.
@inline(__always)
func monotonicNanoseconds() -> UInt64 {
  var now = timespec()
  clock_gettime(CLOCK_MONOTONIC, &now)
  return UInt64(now.tv_sec) &* 1_000_000_000 &+ UInt64(now.tv_nsec)
}

/// What is counted of a VM, and of a snapshot as the sum over its clones. Written by the family's thread.
struct PagingCounters {
  var faults: UInt64 = 0
  var pagesFetched: UInt64 = 0
  var pagesPrefetched: UInt64 = 0
  var pagesZero: UInt64 = 0
  var preimagesSaved: UInt64 = 0
  var faultTime = LatencyHistogram()
  var preimageTime = LatencyHistogram()

  func deallocate() {
    faultTime.deallocate()
    preimageTime.deallocate()
  }
}
