import Glibc

/// What offloads are believed to have saved.
extension BlockProfile {
  /// Of what may be earned: the rest covers what estimates err.
  static let earnedShare = 0.9

  /// Home's factor over a clone, and its error, as logarithms: the mean of all classes, by how well each is known.
  var slowness: (mean: Double, error: Double)? {
    var weights = 0.0
    var mean = 0.0
    for value in classes.values where value.knowsSlowness {
      // Classes differ by a little even when each is known well.
      let weight = 1 / (value.slownessError * value.slownessError + 0.02)
      weights += weight
      mean += weight * value.slowness
    }
    return weights == 0 ? nil : (mean / weights, 1 / weights.squareRoot())
  }

  /// Rather less than more: the class's own if that is known well.
  func slownessLow(_ index: Int) -> Double? {
    if let own = classes[index], own.knowsSlowness, own.slownessError < 0.2 {
      return own.slowness - LogEstimate.caution * own.slownessError
    }
    return slowness.map { $0.mean - LogEstimate.caution * $0.error }
  }

  /// What a call that ran `runUs` in a clone would have taken at home at the least, if a clone is not slower than the
  /// device: all that is believed of an offload before there is another call at home.
  func certainHomeUs(_ index: Int, runUs: Double) -> Double {
    let factor = exp(min(0, slownessLow(index) ?? 0))
    let own = classes[index].flatMap { $0.home.isEmpty ? nil : $0.homeUsLow }
    return min(runUs * factor, own ?? 0.5 * (expectedHome(index)?.us ?? 0))
  }

  /// A call at home: it earns its share, and shows whether those that ran in clones since the last one would have been
  /// as slow.
  mutating func addHome(_ index: Int, us: Double, overrun: Double) {
    homeUs += us
    accountUs += Self.earnedShare * overrun * us
    let before = pendingHomeUs()
    shiftIfFaster(index, us: us)
    classes[index, default: SizeClass()].addHome(us: us)
    guard classes[index]?.knowsSlowness == true else { return }
    // Between two calls at home it may have been as with the one or as with the other.
    for (key, confirmedUs) in pendingHomeUs() {
      let believedUs = min(before[key] ?? confirmedUs, confirmedUs)
      accountUs += (1 + Self.earnedShare * overrun) * believedUs - classes[key]!.pending.creditedUs
      classes[key]!.pending = SizeClass.Pending()
    }
  }

  /// What the unconfirmed offloads of each class would have taken at home, as far as is known now.
  private func pendingHomeUs() -> [Int: Double] {
    var result: [Int: Double] = [:]
    for (key, value) in classes where value.pending.count > 0 {
      guard let slowness = slownessLow(key) else { continue }
      let typical = value.home.isEmpty ? expectedHome(key)?.us : value.homeUsLow
      result[key] = min(exp(slowness) * value.pending.runUs, (typical ?? 0) * value.pending.count)
    }
    return result
  }

  /// A device that has become faster is so for calls of every size.
  private mutating func shiftIfFaster(_ index: Int, us: Double) {
    guard let own = classes[index], own.home.isFall(us) else { return }
    let shift = log(max(us, 1)) - own.home.mean
    for key in classes.keys where key != index && !classes[key]!.home.isEmpty {
      classes[key]!.home.mean += shift
      classes[key]!.slowness += shift
    }
  }

  mutating func addOffload(_ index: Int, _ times: OffloadTimes, transferUs: Double) {
    classes[index, default: SizeClass()].addOffload(times, transferUs: transferUs)
    let creditUs = certainHomeUs(index, runUs: times.runUs)
    accountUs += creditUs - times.totalUs
    classes[index]!.pending.count += 1
    classes[index]!.pending.runUs += times.runUs
    classes[index]!.pending.creditedUs += creditUs
    addAttempt(failedAfterUs: nil)
  }

  mutating func addAttempt(failedAfterUs: Double?) {
    failureShare += ((failedAfterUs == nil ? 0 : 1) - failureShare) * Self.failureRecency
    guard let failedAfterUs else { return }
    failureUs = failureUs == 0 ? failedAfterUs : 0.5 * (failureUs + failedAfterUs)
  }
}
