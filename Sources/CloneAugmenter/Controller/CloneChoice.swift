/// Which way to have the clone of a block costs less beside the run itself: a fork for each call, or one clone that is
/// kept and brought into step with what the program has changed between calls.
///
/// A kept clone begins with a fork, so that fork's cost is known first; the other is tried with the next call.
package struct CloneChoice: Sendable {
  package enum Way: Sendable { case fork, kept }

  /// After so many forks in a row, the other way is tried again: what the program changes between calls may be less.
  static let forksUntilTrial = 16
  /// The weight of the last call in a mean.
  private static let weight = 0.3

  private var forkUs: Double?
  private var keptUs: Double?
  private var forks = 0

  package init() {}

  /// What a call took beside the block's own time, microseconds; all of it if nothing came of it.
  package mutating func record(_ way: Way, overheadUs: Double) {
    func mean(_ before: Double?) -> Double {
      before.map { $0 + Self.weight * (overheadUs - $0) } ?? overheadUs
    }
    switch way {
    case .fork:
      forkUs = mean(forkUs)
      forks += 1
    case .kept:
      // What it was before a row of forks is of the past.
      keptUs = forks < Self.forksUntilTrial ? mean(keptUs) : overheadUs
      forks = 0
    }
  }

  /// Whether the clone of a call is to be kept for the next.
  package var keeps: Bool {
    guard let forkUs, let keptUs else { return true }
    return keptUs < forkUs || forks >= Self.forksUntilTrial
  }
}
