import Glibc

/// Decides, call by call, whether a computation block runs at home or in a clone, from what earlier calls took.
///
/// **Promise.** For each block, all of its calls together take at most `1 + overrun` times what they would have taken at
/// home, and `trialUs` once, whatever links and clones do. It rests on two things. The *account* of a block begins with
/// `trialUs`; a call at home adds `overrun` of its time; an offload takes its time from it and gives back what the call
/// would have taken at home, as far as that is certain: at once no more than the clone needed for it, and the rest when
/// a later call at home shows that home is still as slow. A *deadline* is what the account affords: an offload that is
/// not back by then is given up, and has cost no more than there was.
///
/// What is not measured is estimated, so the promise supposes that a clone is not slower than the device unless it has
/// been seen to be, that calls with like hints come from one distribution until one of them shows otherwise, and that
/// the caller keeps the deadline.
///
/// It reads no clock and no file, and decides without regard to what other blocks do, except that a first trial is not
/// made of a call that is shorter than what offloads of other blocks have had beside their runs.
public struct Controller: Sendable {
  public let limits: ControllerLimits
  var blocks: [BlockID: BlockProfile] = [:]
  /// What offloads took beside the run, of all blocks.
  var besideRun = LogEstimate()
  var link: CloneLink?
  var decisions: UInt64 = 0

  /// The least that is worth keeping: those used last.
  static let blocksMax = 256

  public init(limits: ControllerLimits = ControllerLimits()) { self.limits = limits }

  /// What may be spent on the block's offloads before they have earned more, in µs.
  public func accountUs(of block: BlockID) -> Double { blocks[block]?.accountUs ?? limits.trialUs }

  // MARK: - Before a call

  /// - Parameters:
  ///   - link: the way to the clone as it is now, if the caller knows.
  ///   - nowUs: the time at which the call begins, on any steady clock.
  public mutating func decide(_ call: BlockCall, link: CloneLink? = nil, nowUs: UInt64) -> Placement {
    decisions += 1
    if let link { self.link = link }
    var profile = blocks[call.block] ?? BlockProfile(accountUs: limits.trialUs)
    profile.lastUse = decisions
    blocks[call.block] = profile
    if blocks.count > Self.blocksMax { forgetOldest() }
    guard let us = deadlineUs(profile, BlockProfile.index(sizeHint: call.sizeHint)) else { return .home }
    return .clone(deadlineUs: nowUs &+ UInt64(us))
  }

  /// How long an offload may take until its result is here; nil: none.
  func deadlineUs(_ profile: BlockProfile, _ index: Int) -> Double? {
    guard let home = profile.expectedHome(index), home.us > limits.offloadUsMin else { return nil }
    let sizeClass = profile.classes[index] ?? SizeClass()
    let wholeUs: Double?
    if let offload = profile.expectedOffload(index, homeUs: home.us, link: link) {
      wholeUs = knownUs(profile, sizeClass, home, offload)
    } else {
      wholeUs = trialUs(profile, sizeClass, home)
    }
    guard let wholeUs else { return nil }
    let untilHereUs = profile.mergeUsMax(index).map { wholeUs - $0 } ?? wholeUs / 1.5
    return untilHereUs >= max(limits.offloadUsMin, wholeUs / 4) ? untilHereUs : nil
  }

  /// The first trial, and those after one that the account could not wait for: each may wait twice as long.
  private func trialUs(_ profile: BlockProfile, _ sizeClass: SizeClass, _ home: BlockProfile.HomeExpectation)
    -> Double?
  {
    guard profile.homeUs >= sizeClass.gateUs else { return nil }
    let leastUs = max(limits.offloadUsMin, besideRun.isEmpty ? 0 : besideRun.typical)
    guard leastUs < home.us else { return nil }
    let wholeUs = min(profile.accountUs, home.us)
    // A clone ten times as fast is hoped for first, then one half as fast as that.
    let hopedUs = max(0.1 * home.us, min(2 * sizeClass.givenUpUs, home.us))
    return wholeUs >= max(leastUs, hopedUs) ? wholeUs : nil
  }

  private func knownUs(
    _ profile: BlockProfile, _ sizeClass: SizeClass, _ home: BlockProfile.HomeExpectation,
    _ offload: BlockProfile.OffloadExpectation
  ) -> Double? {
    let share = profile.failureShare
    let expectedUs = (1 - share) * offload.averageUs + share * (profile.failureUs + home.us)
    guard expectedUs < 0.9 * home.us else {
      // It does not pay, as far as is known; but where that was tried, clones and what is not told of links change.
      guard sizeClass.gateUs > 0, profile.homeUs >= sizeClass.gateUs, profile.accountUs >= home.us
      else { return nil }
      return home.us
    }
    guard sizeClass.failuresInRow < 2 || profile.homeUs >= sizeClass.gateUs else { return nil }
    // What waits costs nothing but when nothing comes; what is given up costs a whole call at home.
    let patience = min(max(exp(3 * offload.deviation), 2), 8)
    let wait = max(patience, min(home.us / offload.typicalUs, 0.2 / (share + 0.005)))
    // If it is given up, the call itself runs at home, and earns.
    let ownUs = sizeClass.home.isEmpty ? 0 : BlockProfile.earnedShare * limits.overrun * sizeClass.homeUsLow
    let wholeUs = min(profile.accountUs + ownUs, wait * offload.typicalUs)
    return wholeUs >= (offload.isBorrowed ? 0.7 : 1.5) * offload.typicalUs ? wholeUs : nil
  }

  // MARK: - After a call

  /// Of what a failed offload took, one record, and of the call's run at home another. Times that are negative or no
  /// numbers are not taken.
  ///
  /// - Parameters:
  ///   - link: the way to the clone as it was meanwhile, if the caller knows.
  ///   - wasDecided: false: somebody else has said that the call is to be offloaded. It is learnt from, but not paid for:
  ///     the account is as before.
  public mutating func record(
    _ call: BlockCall, _ outcome: CallOutcome, link: CloneLink? = nil, wasDecided: Bool = true
  ) {
    guard outcome.isPossible else { return }
    if let link { self.link = link }
    let index = BlockProfile.index(sizeHint: call.sizeHint)
    var profile = blocks[call.block] ?? BlockProfile(accountUs: limits.trialUs)
    let expectedUs = profile.expectedHome(index)?.us
    let (accountUs, pending) = (profile.accountUs, profile.classes[index]?.pending)
    switch outcome {
    case .home(let us):
      profile.explainGivingUp(index, homeUs: us)
      profile.addHome(index, us: us, overrun: limits.overrun)
    case .returned(let times):
      let bytes = Double(times.bytesOut) + Double(times.bytesHome)
      profile.addOffload(index, times, transferUs: self.link?.transferUs(bytes: bytes) ?? 0)
      besideRun.add(times.totalUs - times.runUs)
      if let expectedUs, times.totalUs > expectedUs {
        profile.postpone(index, costUs: expectedUs)
      } else {
        profile.classes[index]!.fruitless = 0
      }
    case .cameHomeEarly(let times):
      let creditUs = profile.certainHomeUs(index, runUs: times.runUs)
      profile.fail(index, afterUs: times.totalUs)
      profile.accountUs += min(creditUs, times.totalUs)
    case .gaveUp(let afterUs):
      profile.giveUp(index, afterUs: afterUs)
      if let expectedUs, afterUs >= 0.6 * expectedUs { profile.postpone(index, costUs: afterUs) }
    case .failed(let afterUs):
      profile.fail(index, afterUs: afterUs)
    }
    if !wasDecided {
      profile.accountUs = accountUs
      profile.classes[index]?.pending = pending ?? SizeClass.Pending()
    }
    blocks[call.block] = profile
  }

  private mutating func forgetOldest() {
    guard let oldest = blocks.min(by: { $0.value.lastUse < $1.value.lastUse }) else { return }
    blocks[oldest.key] = nil
  }
}
