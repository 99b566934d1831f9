extension Policy {
  /// What a policy's file may have at most, bytes.
  public static let fileLimit = 64 << 10
  static let ruleLimit = 100
  private static let bytesPerMegabit = 125_000.0

  /// The policy in a file's bytes. Strict: what is not known, or out of its range, is refused with the place.
  public init(json bytes: [UInt8]) throws(PolicyError) {
    guard bytes.count <= Self.fileLimit else {
      throw PolicyError("it has \(bytes.count) bytes. Keep it below \(Self.fileLimit).")
    }
    var top = try PolicyObject(try PolicyValue(json: bytes), place: "")
    try top.require("version", to: 1)
    let name = try top.text("name")
    let isMetered = try top.flag("metered")
    let list = top.take("rules")
    guard case .array(let values)? = list?.kind else {
      throw PolicyError("it has no list “rules”. Give it one.", line: list?.line ?? top.line)
    }
    guard values.count <= Self.ruleLimit else {
      throw PolicyError("it has \(values.count) rules. Keep it to \(Self.ruleLimit).", line: list?.line)
    }
    var rules: [Rule] = []
    for (index, value) in values.enumerated() {
      rules.append(try Self.rule(value, place: "rule \(index + 1)"))
    }
    try top.finish()
    if let fault = Self.fault(in: rules) {
      throw PolicyError(fault.why, line: fault.rule.map { values[$0].line } ?? list?.line)
    }
    self.init(name: name ?? "", isMetered: isMetered, checked: rules)
  }

  private static func rule(_ value: PolicyValue, place: String) throws(PolicyError) -> Rule {
    var object = try PolicyObject(value, place: place)
    let name = try object.text("name") ?? ""
    var when = Requirements()
    if let value = object.take("when") { when = try requirements(value, place: "\(place), when") }
    guard let background = try object.distance("background_s", 0.1...604_800) else {
      throw PolicyError(
        "\(place): “background_s” is missing. Give seconds, or \"never\".", line: object.line)
    }
    let onDemand = try object.distance("on_demand_s", 0...604_800) ?? .some(.zero)
    let share = try object.number("link_share", 0.001...1) ?? 1
    try object.finish()
    return Rule(name: name, when: when, background: background, onDemand: onDemand, linkShare: share)
  }

  private static func requirements(_ value: PolicyValue, place: String) throws(PolicyError) -> Requirements {
    var object = try PolicyObject(value, place: place)
    var when = Requirements()
    when.isMetered = try object.flag("metered")
    when.isCharging = try object.flag("charging")
    when.isIdle = try object.flag("idle")
    when.batteryPercentBelow = try object.number("battery_below", 1...100).map { Int($0) }
    when.batteryPercentAtLeast = try object.number("battery_at_least", 0...100).map { Int($0) }
    let speeds = 0.001...1_000_000.0
    when.linkBytesPerSecondBelow = try object.number("link_mbit_below", speeds).map {
      UInt64($0 * bytesPerMegabit)
    }
    when.linkBytesPerSecondAtLeast = try object.number("link_mbit_at_least", speeds).map {
      UInt64($0 * bytesPerMegabit)
    }
    try object.finish()
    if let why = contradiction(in: when) { throw PolicyError("\(place): \(why)", line: value.line) }
    return when
  }

  /// What can never be so is a slip.
  private static func contradiction(in when: Requirements) -> String? {
    let asksBattery = when.batteryPercentBelow != nil || when.batteryPercentAtLeast != nil
    if asksBattery, when.isCharging == true {
      return "it asks for the battery of a device that charges. Leave out one of them."
    }
    if let below = when.batteryPercentBelow, let least = when.batteryPercentAtLeast, least >= below {
      return "no battery has at least \(least) and below \(below) percent. Mend the bounds."
    }
    if let below = when.linkBytesPerSecondBelow, let least = when.linkBytesPerSecondAtLeast, least >= below {
      return "no link is of both speeds. Mend the bounds."
    }
    return nil
  }
}

/// An object of which every key must be taken.
struct PolicyObject {
  private var rest: [PolicyValue.Member]
  private var known: [String] = []
  private let place: String
  /// Where it begins.
  let line: Int

  init(_ value: PolicyValue, place: String) throws(PolicyError) {
    self.place = place.isEmpty ? "" : place + ": "
    line = value.line
    guard case .object(let members) = value.kind else {
      throw PolicyError("\(place.isEmpty ? "it" : place) is no object. Write it in braces.", line: value.line)
    }
    rest = members
  }

  mutating func take(_ key: String) -> PolicyValue? {
    known.append(key)
    guard let index = rest.firstIndex(where: { $0.key == key }) else { return nil }
    return rest.remove(at: index).value
  }

  mutating func require(_ key: String, to number: Int) throws(PolicyError) {
    let value = take(key)
    guard case .number(Double(number))? = value?.kind else {
      throw refusal(
        "“\(key)” is not \(number), the one that this version reads. Write \"\(key)\": \(number).", value)
    }
  }

  mutating func text(_ key: String) throws(PolicyError) -> String? {
    guard let value = take(key) else { return nil }
    guard case .text(let text) = value.kind, (1...80).contains(text.count) else {
      throw refusal("“\(key)” is no text of 1 to 80 letters. Write one, or leave it out.", value)
    }
    return text
  }

  mutating func flag(_ key: String) throws(PolicyError) -> Bool? {
    guard let value = take(key) else { return nil }
    guard case .flag(let flag) = value.kind else {
      throw refusal("“\(key)” is neither true nor false. Write one of them, or leave it out.", value)
    }
    return flag
  }

  mutating func number(_ key: String, _ range: ClosedRange<Double>) throws(PolicyError) -> Double? {
    guard let value = take(key) else { return nil }
    return try number(value, key, range, or: "")
  }

  /// Outer nil: it is not there. Inner nil: never.
  mutating func distance(_ key: String, _ range: ClosedRange<Double>) throws(PolicyError) -> Policy.Distance?
  {
    guard let value = take(key) else { return nil }
    if case .text("never") = value.kind { return .some(nil) }
    let seconds = try number(value, key, range, or: ", nor is it \"never\"")
    return .some(.milliseconds(Int64((seconds * 1000).rounded())))
  }

  private func number(
    _ value: PolicyValue, _ key: String, _ range: ClosedRange<Double>, or: String
  ) throws(PolicyError) -> Double {
    guard case .number(let number) = value.kind, range.contains(number) else {
      func text(_ number: Double) -> String {
        number == number.rounded() ? "\(Int64(number))" : "\(number)"
      }
      throw refusal(
        "“\(key)” is no number from \(text(range.lowerBound)) to \(text(range.upperBound))\(or). Write one.",
        value)
    }
    return number
  }

  /// To be called after the last key.
  func finish() throws(PolicyError) {
    guard let first = rest.first else { return }
    throw PolicyError(
      "\(place)“\(first.key)” is not known. There are \(known.joined(separator: ", ")).", line: first.line)
  }

  private func refusal(_ why: String, _ value: PolicyValue?) -> PolicyError {
    PolicyError(place + why, line: value?.line ?? line)
  }
}
