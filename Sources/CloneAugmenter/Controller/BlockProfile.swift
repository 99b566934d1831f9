import Glibc

/// All that is known of one block: its classes of size and its account.
struct BlockProfile: Equatable {
  /// What may be spent, in µs: see Controller.
  var accountUs: Double
  /// All calls at home together, in µs.
  var homeUs = 0.0
  var classes: [Int: SizeClass] = [:]
  /// The share of offloads that brought nothing, lately, and what such a one cost, in µs.
  var failureShare = 0.0
  var failureUs = 0.0
  /// The controller's count of decisions at the last use.
  var lastUse: UInt64 = 0

  static let failureRecency = 0.1

  /// Calls without a hint are a class of their own, -1.
  static func index(sizeHint: UInt64?) -> Int {
    guard let sizeHint else { return -1 }
    return sizeHint == 0 ? 0 : 64 - sizeHint.leadingZeroBitCount
  }

  struct HomeExpectation {
    var us: Double
    /// From classes of other sizes.
    var isBorrowed: Bool
  }

  /// The class's own time, or one that lies between those of smaller and larger calls.
  func expectedHome(_ index: Int) -> HomeExpectation? {
    if let us = classes[index]?.homeUs { return HomeExpectation(us: us, isBorrowed: false) }
    guard index >= 0 else { return nil }
    let known = classes.compactMap { key, value in value.homeUs.map { (key: key, us: $0) } }
    let smaller = known.filter { $0.key >= 0 && $0.key < index }.max { $0.key < $1.key }
    let larger = known.filter { $0.key > index }.min { $0.key < $1.key }
    switch (smaller, larger) {
    case (nil, nil): return nil
    case (let smaller?, nil): return HomeExpectation(us: smaller.us, isBorrowed: true)
    // The time is supposed to grow no faster than the hint.
    case (nil, let larger?):
      return HomeExpectation(us: larger.us * exp2(Double(index - larger.key)), isBorrowed: true)
    case (let smaller?, let larger?):
      let way = Double(index - smaller.key) / Double(larger.key - smaller.key)
      return HomeExpectation(us: exp((1 - way) * log(smaller.us) + way * log(larger.us)), isBorrowed: true)
    }
  }

  struct OffloadExpectation {
    var typicalUs: Double
    var averageUs: Double
    /// A factor's logarithm.
    var deviation: Double
    /// From classes of other sizes.
    var isBorrowed: Bool
  }

  /// The class's own offloads, or what others of this block, of the nearest size, had beside the run, and a run in
  /// proportion to the time at home.
  func expectedOffload(_ index: Int, homeUs: Double, link: CloneLink?) -> OffloadExpectation? {
    if let own = classes[index], !own.fixed.isEmpty {
      let transferUs = link?.transferUs(bytes: own.bytes) ?? 0
      return OffloadExpectation(
        typicalUs: own.fixed.typical + transferUs, averageUs: own.fixed.average + transferUs,
        deviation: own.fixed.deviation, isBorrowed: false)
    }
    let others = classes.filter { !$0.value.fixed.isEmpty && $0.key >= 0 && index >= 0 }
    guard let nearest = others.min(by: { abs($0.key - index) < abs($1.key - index) })?.value, let slowness
    else { return nil }
    let besideRun = max(nearest.fixed.typical - nearest.run.typical, 0)
    let us = besideRun + homeUs / exp(slowness.mean) + (link?.transferUs(bytes: nearest.bytes) ?? 0)
    return OffloadExpectation(typicalUs: us, averageUs: 1.2 * us, deviation: 0.5, isBorrowed: true)
  }

  /// What merging may take at the worst, for a deadline of the result's arrival; nil while no result has been merged.
  func mergeUsMax(_ index: Int) -> Double? {
    if let own = classes[index]?.merge, !own.isEmpty { return own.typical * exp(3 * own.deviation) }
    return classes.values.filter { !$0.merge.isEmpty }.map { $0.merge.typical * exp(3 * $0.merge.deviation) }
      .max()
  }
}
