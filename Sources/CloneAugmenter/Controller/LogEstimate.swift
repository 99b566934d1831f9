import Glibc

/// Mean and spread of a positive quantity, in logarithms: times differ by factors, and one long call must not hide many
/// short ones. Later samples weigh more, so that it follows what changes.
struct LogEstimate: Equatable {
  var count = 0.0
  var mean = 0.0
  var variance = 0.0

  /// The share of a new sample once there are many.
  static let recency = 0.2
  /// How many errors of the mean a careful estimate lies below it.
  static let caution = 3.0
  /// What is believed of the spread before it is known: a factor of 1.5 up or down, worth two samples.
  private static let priorVariance = 0.16
  private static let priorWeight = 2.0

  var isEmpty: Bool { count == 0 }

  mutating func add(_ value: Double) {
    let sample = log(max(value, 1))
    count = min(count + 1, 1e6)
    let share = max(1 / count, Self.recency)
    let difference = sample - mean
    mean += share * difference
    variance = (1 - share) * (variance + share * difference * difference)
  }

  mutating func restart(at value: Double) {
    self = LogEstimate()
    add(value)
  }

  /// As a factor's logarithm.
  var deviation: Double {
    ((variance * count + Self.priorVariance * Self.priorWeight) / (count + Self.priorWeight)).squareRoot()
  }

  /// Of the mean.
  var error: Double { deviation / max(1, min(count, 2 / Self.recency - 1)).squareRoot() }

  var typical: Double { exp(mean) }
  /// The arithmetic mean, which is above the typical value.
  var average: Double { exp(mean + deviation * deviation / 2) }

  /// Whether a value is so far off that what was measured before says nothing of it.
  func isJump(_ value: Double) -> Bool {
    !isEmpty && abs(log(max(value, 1)) - mean) > 4 * deviation
  }

  /// So far below: one that is as far above is rather a long call than another time.
  func isFall(_ value: Double) -> Bool { isJump(value) && log(max(value, 1)) < mean }
}
