import Glibc

/// What was measured of the calls of a block that have about the same to do. Times in µs.
struct SizeClass: Equatable {
  /// At home.
  var home = LogEstimate()
  /// In the clone, from the first to the last instruction.
  var run = LogEstimate()
  /// The whole of an offload without what its bytes take on the link.
  var fixed = LogEstimate()
  var merge = LogEstimate()
  /// Both ways, a mean in which later ones weigh more.
  var bytes = 0.0

  /// How much longer than a clone the home needs for the same, as a logarithm, with its error. Kept from the last call
  /// at home on: if later the runs in clones get shorter, the calls have less to do, and would at home, too.
  var slowness = 0.0
  var slownessError = 0.0
  var knowsSlowness = false
  /// What calls that were given up and then ran at home leave possible of it: offloads that return are rather the short
  /// ones, and compared with calls at home of any length let a clone look faster than it is.
  var slownessMax = Double.infinity

  /// Offloads since the last call at home, whose gain is believed when there is another.
  var pending = Pending()
  /// Failures and deadlines since the last offload that returned.
  var failuresInRow = 0
  /// The longest time after which an offload was given up, since the last that returned.
  var givenUpUs = 0.0
  /// After which time the last offload was given up, until the same call has run at home.
  var unexplainedUs = 0.0
  /// Offloads in a row that were slower than home.
  var fruitless = 0
  /// The block's time at home before which there is no further trial.
  var gateUs = 0.0

  /// Runs of the program since the last one whose calls were watched.
  var unwatchedRuns = 0

  struct Pending: Equatable {
    var count = 0.0
    var runUs = 0.0
    /// What the account has been given for them already.
    var creditedUs = 0.0
  }

  // MARK: - What is expected

  /// The mean time at home; nil before the first.
  var homeUs: Double? {
    guard !home.isEmpty else { return nil }
    guard knowsSlowness, !run.isEmpty else { return home.average }
    return min(home.average, exp(slowness) * run.average)
  }

  /// Of a call at home, rather less than more.
  var homeUsLow: Double { home.average * exp(-LogEstimate.caution * home.error) }

  // MARK: - What is learned

  mutating func addHome(us: Double) {
    if home.isFall(us) { home.restart(at: us) } else { home.add(us) }
    slownessMax += 0.05
    if !run.isEmpty { learnSlowness() }
  }

  private mutating func learnSlowness() {
    slowness = min(home.mean - run.mean, slownessMax)
    slownessError = (home.error * home.error + run.error * run.error).squareRoot()
    knowsSlowness = true
  }

  mutating func addOffload(_ times: OffloadTimes, transferUs: Double) {
    let fixedUs = max(times.totalUs - transferUs, times.totalUs / 10)
    if run.isFall(times.runUs) { run.restart(at: times.runUs) } else { run.add(times.runUs) }
    if fixed.isJump(fixedUs) { fixed.restart(at: fixedUs) } else { fixed.add(fixedUs) }
    merge.add(times.mergeUs)
    let moved = Double(times.bytesOut) + Double(times.bytesHome)
    bytes += (moved - bytes) * max(1 / fixed.count, LogEstimate.recency)
    if !knowsSlowness && !home.isEmpty { learnSlowness() }
    failuresInRow = 0
    givenUpUs = 0
  }
}
