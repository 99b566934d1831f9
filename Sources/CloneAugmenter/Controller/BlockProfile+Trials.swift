import Glibc

/// When there is another trial after one that brought nothing.
extension BlockProfile {
  mutating func fail(_ index: Int, afterUs: Double) {
    accountUs -= afterUs
    countFailure(index, afterUs: afterUs)
  }

  private mutating func countFailure(_ index: Int, afterUs: Double) {
    addAttempt(failedAfterUs: afterUs)
    var sizeClass = classes[index] ?? SizeClass()
    sizeClass.failuresInRow += 1
    if sizeClass.failuresInRow >= 2 {
      let doublings = min(sizeClass.failuresInRow - 2, 10)
      sizeClass.gateUs = max(sizeClass.gateUs, homeUs + 5 * afterUs * exp2(Double(doublings)))
    }
    classes[index] = sizeClass
  }

  mutating func giveUp(_ index: Int, afterUs: Double) {
    accountUs -= afterUs
    var sizeClass = classes[index] ?? SizeClass()
    sizeClass.givenUpUs = max(sizeClass.givenUpUs, afterUs)
    sizeClass.unexplainedUs = afterUs
    classes[index] = sizeClass
  }

  /// The call that was given up has run at home: was it a long one, or was nothing to come?
  mutating func explainGivingUp(_ index: Int, homeUs us: Double) {
    guard let own = classes[index], own.unexplainedUs > 0 else { return }
    classes[index]!.unexplainedUs = 0
    let slowness = own.knowsSlowness ? own.slowness : slownessLow(index) ?? 0
    let besideUs = own.fixed.isEmpty ? 0 : max(own.fixed.typical - own.run.typical, 0)
    if own.fixed.isEmpty || besideUs + us / exp(slowness) >= 0.7 * own.unexplainedUs {
      let ranUs = own.unexplainedUs - besideUs
      if ranUs > 0 { classes[index]!.slownessMax = min(own.slownessMax, log(us / ranUs)) }
      return
    }
    countFailure(index, afterUs: own.unexplainedUs)
    // Or offloads take at least so long now.
    if own.unexplainedUs > own.fixed.typical { classes[index]!.fixed.add(own.unexplainedUs) }
  }

  /// No trial again before home has taken so long that another costs little of it.
  mutating func postpone(_ index: Int, costUs: Double) {
    guard var sizeClass = classes[index] else { return }
    let us = 25 * costUs * exp2(Double(min(sizeClass.fruitless, 6)))
    sizeClass.gateUs = max(sizeClass.gateUs, homeUs + us)
    sizeClass.fruitless += 1
    classes[index] = sizeClass
  }
}
