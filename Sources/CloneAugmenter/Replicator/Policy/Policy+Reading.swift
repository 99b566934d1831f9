import Foundation

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
    let value: PolicyValue
    do { value = try JSONDecoder().decode(PolicyValue.self, from: Data(bytes)) } catch {
      throw PolicyError("it is not JSON. Look for a missing comma or quote.")
    }
    var top = try PolicyObject(value, place: "")
    try top.require("version", to: 1)
    guard case .array(let values)? = top.take("rules") else {
      throw PolicyError("it has no list “rules”. Give it one.")
    }
    guard values.count <= Self.ruleLimit else {
      throw PolicyError("it has \(values.count) rules. Keep it to \(Self.ruleLimit).")
    }
    var rules: [Rule] = []
    for (index, value) in values.enumerated() {
      rules.append(try Self.rule(value, place: "rule \(index + 1)"))
    }
    try top.finish()
    try self.init(rules: rules)
  }

  private static func rule(_ value: PolicyValue, place: String) throws(PolicyError) -> Rule {
    var object = try PolicyObject(value, place: place)
    let name = try object.text("name") ?? ""
    var when = Requirements()
    if let value = object.take("when") { when = try requirements(value, place: "\(place), when") }
    guard let background = try object.distance("background_s", 0.1...604_800) else {
      throw PolicyError("\(place): “background_s” is missing. Give seconds, or \"never\".")
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
    try check(when, place)
    return when
  }

  /// What can never be so is a slip.
  private static func check(_ when: Requirements, _ place: String) throws(PolicyError) {
    let asksBattery = when.batteryPercentBelow != nil || when.batteryPercentAtLeast != nil
    if asksBattery, when.isCharging == true {
      throw PolicyError("\(place): it asks for the battery of a device that charges. Leave out one of them.")
    }
    if let below = when.batteryPercentBelow, let least = when.batteryPercentAtLeast, least >= below {
      throw PolicyError(
        "\(place): no battery has at least \(least) and below \(below) percent. Mend the bounds.")
    }
    if let below = when.linkBytesPerSecondBelow, let least = when.linkBytesPerSecondAtLeast, least >= below {
      throw PolicyError("\(place): no link is of both speeds. Mend the bounds.")
    }
  }
}

/// JSON, its kinds told apart.
enum PolicyValue: Decodable {
  case null
  case flag(Bool)
  case number(Double)
  case text(String)
  case array([PolicyValue])
  case object([String: PolicyValue])

  init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    if container.decodeNil() {
      self = .null
    } else if let flag = try? container.decode(Bool.self) {
      self = .flag(flag)
    } else if let number = try? container.decode(Double.self) {
      self = .number(number)
    } else if let text = try? container.decode(String.self) {
      self = .text(text)
    } else if let array = try? container.decode([PolicyValue].self) {
      self = .array(array)
    } else {
      self = .object(try container.decode([String: PolicyValue].self))
    }
  }
}

/// An object of which every key must be taken.
struct PolicyObject {
  private var rest: [String: PolicyValue]
  private var known: [String] = []
  private let place: String

  init(_ value: PolicyValue, place: String) throws(PolicyError) {
    self.place = place.isEmpty ? "" : place + ": "
    guard case .object(let object) = value else {
      throw PolicyError("\(place.isEmpty ? "it" : place) is no object. Write it in braces.")
    }
    rest = object
  }

  mutating func take(_ key: String) -> PolicyValue? {
    known.append(key)
    return rest.removeValue(forKey: key)
  }

  mutating func require(_ key: String, to number: Int) throws(PolicyError) {
    guard case .number(Double(number))? = take(key) else {
      throw PolicyError(
        "\(place)“\(key)” is not \(number), the one that this version reads. Write \"\(key)\": \(number).")
    }
  }

  mutating func text(_ key: String) throws(PolicyError) -> String? {
    guard let value = take(key) else { return nil }
    guard case .text(let text) = value, (1...80).contains(text.count) else {
      throw PolicyError("\(place)“\(key)” is no text of 1 to 80 letters. Write one, or leave it out.")
    }
    return text
  }

  mutating func flag(_ key: String) throws(PolicyError) -> Bool? {
    guard let value = take(key) else { return nil }
    guard case .flag(let flag) = value else {
      throw PolicyError("\(place)“\(key)” is neither true nor false. Write one of them, or leave it out.")
    }
    return flag
  }

  mutating func number(_ key: String, _ range: ClosedRange<Double>) throws(PolicyError) -> Double? {
    guard let value = take(key) else { return nil }
    return try number(value, key, range, or: "")
  }

  /// Outer nil: it is not there. Inner nil: never.
  mutating func distance(_ key: String, _ range: ClosedRange<Double>) throws(PolicyError) -> Distance? {
    guard let value = take(key) else { return nil }
    if case .text("never") = value { return .some(nil) }
    let seconds = try number(value, key, range, or: ", nor is it \"never\"")
    return .some(.milliseconds(Int64((seconds * 1000).rounded())))
  }
  typealias Distance = Policy.Distance

  private func number(
    _ value: PolicyValue, _ key: String, _ range: ClosedRange<Double>, or: String
  ) throws(PolicyError) -> Double {
    guard case .number(let number) = value, range.contains(number) else {
      func text(_ number: Double) -> String {
        number == number.rounded() ? "\(Int64(number))" : "\(number)"
      }
      throw PolicyError(
        "\(place)“\(key)” is no number from \(text(range.lowerBound)) to \(text(range.upperBound))\(or). Write one."
      )
    }
    return number
  }

  /// To be called after the last key.
  func finish() throws(PolicyError) {
    guard let key = rest.keys.sorted().first else { return }
    throw PolicyError("\(place)“\(key)” is not known. There are \(known.joined(separator: ", ")).")
  }
}
