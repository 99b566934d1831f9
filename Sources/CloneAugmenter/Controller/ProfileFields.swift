/// The words of one line of a profile.
struct FieldReader {
  private var words: ArraySlice<Substring>

  init(_ line: Substring) { words = line.split(separator: " ", omittingEmptySubsequences: false)[...] }

  var isAtEnd: Bool { words.isEmpty }

  mutating func word() -> Substring? { words.popFirst() }

  /// Any but one that is not a number.
  mutating func number() -> Double? {
    guard let value = words.popFirst().flatMap({ Double($0) }), !value.isNaN else { return nil }
    return value
  }

  /// Not negative, and of a size that can be added to.
  mutating func amount() -> Double? {
    guard let value = number(), value >= 0, value < 1e18 else { return nil }
    return value
  }

  mutating func integer() -> Int? { words.popFirst().flatMap { Int($0) } }

  mutating func estimate() -> LogEstimate? {
    guard let count = amount(), let mean = amount(), let variance = amount(), mean < 50, variance < 2500
    else { return nil }
    var estimate = LogEstimate()
    estimate.count = count
    estimate.mean = mean
    estimate.variance = variance
    return estimate
  }

  mutating func name() -> String? {
    guard let word = words.popFirst(), !word.isEmpty else { return nil }
    if word == "%" { return "" }
    var bytes: [UInt8] = []
    var rest = Array(word.utf8)[...]
    while let byte = rest.popFirst() {
      guard byte == UInt8(ascii: "%") else {
        bytes.append(byte)
        continue
      }
      guard rest.count >= 2, let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16)
      else {
        return nil
      }
      bytes.append(value)
      rest = rest.dropFirst(2)
    }
    return String(validating: bytes, as: UTF8.self)
  }
}

extension LogEstimate {
  var text: String { "\(count) \(mean) \(variance)" }
}

extension BlockProfile {
  init?(_ fields: inout FieldReader) {
    guard let accountUs = fields.number(), abs(accountUs) < 1e18, let homeUs = fields.amount(),
      let failureShare = fields.amount(), failureShare <= 1, let failureUs = fields.amount(),
      let lastUse = fields.integer(), lastUse >= 0
    else { return nil }
    self.init(accountUs: accountUs)
    self.homeUs = homeUs
    self.failureShare = failureShare
    self.failureUs = failureUs
    self.lastUse = UInt64(lastUse)
  }
}

extension SizeClass {
  var text: String {
    let estimates = [home, run, fixed, merge].map(\.text).joined(separator: " ")
    return "\(estimates) \(bytes) \(slowness) \(slownessError) \(knowsSlowness ? 1 : 0) \(slownessMax) "
      + "\(pending.count) \(pending.runUs) \(pending.creditedUs) \(failuresInRow) \(givenUpUs) \(unexplainedUs) "
      + "\(fruitless) \(gateUs) \(unwatchedRuns)"
  }

  init?(_ fields: inout FieldReader) {
    guard let home = fields.estimate(), let run = fields.estimate(), let fixed = fields.estimate(),
      let merge = fields.estimate(), let bytes = fields.amount(), let slowness = fields.number(),
      abs(slowness) < 100,
      let slownessError = fields.amount(), let knows = fields.integer(), knows == 0 || knows == 1,
      let slownessMax = fields.number(), slownessMax > -100, let count = fields.amount(),
      let runUs = fields.amount(),
      let creditedUs = fields.amount(), let failures = fields.integer(), failures >= 0,
      let givenUpUs = fields.amount(), let unexplainedUs = fields.amount(), let fruitless = fields.integer(),
      fruitless >= 0, let gateUs = fields.amount(), let unwatchedRuns = fields.integer(), unwatchedRuns >= 0
    else { return nil }
    self.home = home
    self.run = run
    self.fixed = fixed
    self.merge = merge
    self.bytes = bytes
    self.slowness = slowness
    self.slownessError = slownessError
    knowsSlowness = knows == 1
    self.slownessMax = slownessMax
    pending = Pending(count: count, runUs: runUs, creditedUs: creditedUs)
    failuresInRow = failures
    self.givenUpUs = givenUpUs
    self.unexplainedUs = unexplainedUs
    self.fruitless = fruitless
    self.gateUs = gateUs
    self.unwatchedRuns = unwatchedRuns
  }
}
