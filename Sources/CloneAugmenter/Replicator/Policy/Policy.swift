/// When a standby gets its next checkpoint: rules over the device's circumstances, of which the first that fits decides.
///
/// Two levels, as CloneCloud has them: coarse ones in the background, of which a rule gives the period; and fine ones
/// on demand, because something is about to need a standby that is up to date, of which it gives the least distance.
/// Pure: time is passed in, as what has gone by since any fixed moment. docs/offload-policies.md has the file's form.
public struct Policy: Sendable, Equatable {
  /// How often; `nil`: never.
  public typealias Distance = Duration?

  public struct Rule: Sendable, Equatable {
    /// For people; empty: the rule is called by its number.
    public var name: String
    public var when: Requirements
    public var background: Distance
    /// Zero: as often as somebody asks.
    public var onDemand: Distance
    /// The share of the time that transfers in the background may take, above 0 up to 1.
    public var linkShare: Double

    public init(
      name: String = "", when: Requirements = Requirements(), background: Distance,
      onDemand: Distance = .zero,
      linkShare: Double = 1
    ) {
      self.name = name
      self.when = when
      self.background = background
      self.onDemand = onDemand
      self.linkShare = linkShare
    }
  }

  /// What must be so for a rule to fit: all of what is not nil. What is not known is not so.
  public struct Requirements: Sendable, Equatable {
    public var isMetered: Bool?
    /// At the mains, whatever its battery says.
    public var isCharging: Bool?
    /// Of a device that runs on its battery.
    public var batteryPercentBelow: Int?
    public var batteryPercentAtLeast: Int?
    public var linkBytesPerSecondBelow: UInt64?
    public var linkBytesPerSecondAtLeast: UInt64?
    public var isIdle: Bool?

    public init() {}

    var isEmpty: Bool { self == Requirements() }
  }

  public struct LastCheckpoint: Sendable, Equatable {
    /// When its transfer began.
    public var began: Duration
    public var took: Duration

    public init(began: Duration, took: Duration) {
      self.began = began
      self.took = took
    }
  }

  public enum Purpose: Sendable { case background, onDemand }

  public enum Decision: Sendable, Equatable {
    /// Begin at `time`, which may be now; ask again before if the circumstances change. `why` is for people.
    case at(_ time: Duration, why: String)
    /// Not for as long as the circumstances are what they are.
    case notNow(why: String)

    public var why: String {
      switch self {
      case .at(_, let why), .notNow(let why): why
      }
    }
  }

  /// For people; empty: it has none of its own.
  public let name: String
  /// Whether bytes over the link cost money, as far as the policy says it.
  public let isMetered: Bool?
  /// Never empty; the last one fits always.
  public let rules: [Rule]

  /// Throws if not every circumstance has a rule, or a rule can never be reached.
  public init(rules: [Rule]) throws(PolicyError) {
    if let fault = Self.fault(in: rules) { throw PolicyError(fault.why) }
    self.init(name: "", isMetered: nil, checked: rules)
  }

  init(name: String, isMetered: Bool?, checked rules: [Rule]) {
    self.name = name
    self.isMetered = isMetered
    self.rules = rules
  }

  /// Why these are no policy, and which of them, if one of them.
  static func fault(in rules: [Rule]) -> (why: String, rule: Int?)? {
    guard let last = rules.last else { return ("it has no rules. Give it one at least.", nil) }
    guard last.when.isEmpty else {
      return (
        "its last rule has conditions, so that none may fit. End it with a rule without “when”.",
        rules.count - 1
      )
    }
    if let index = rules.dropLast().firstIndex(where: \.when.isEmpty) {
      return ("rule \(index + 1) fits always, so that those behind it never do. Give it conditions.", index)
    }
    return nil
  }

  /// Whether some rule asks for that.
  public var asksWhetherIdle: Bool { rules.contains { $0.when.isIdle != nil } }

  /// When to begin the next checkpoint. `lastCheckpoint`: nil if there was none, and then it is due at once.
  public func decide(
    now: Duration, conditions: PolicyConditions, lastCheckpoint: LastCheckpoint?,
    for purpose: Purpose = .background
  ) -> Decision {
    let index = rules.firstIndex { $0.when.holds(conditions) } ?? rules.count - 1
    let rule = rules[index]
    let name = rule.name.isEmpty ? "rule \(index + 1)" : "“\(rule.name)”"
    guard var distance = purpose == .background ? rule.background : rule.onDemand else {
      return .notNow(why: "\(name): none \(purpose == .background ? "in the background" : "on demand")")
    }
    guard let lastCheckpoint else { return .at(now, why: "\(name): there was none yet") }
    var why = "\(name): every \(distance.text)"
    if purpose == .background {
      let least = lastCheckpoint.took / rule.linkShare
      if least > distance {
        distance = least
        why =
          "\(name): the last took \(lastCheckpoint.took.text), and transfers have "
          + "\(Int((rule.linkShare * 100).rounded())) % of the time"
      }
    } else {
      why = "\(name): on demand" + (distance > .zero ? ", \(distance.text) apart" : "")
    }
    // A last one in the future is of another clock: it says nothing.
    let next = lastCheckpoint.began > now ? now : lastCheckpoint.began + distance
    return .at(max(next, now), why: why)
  }
}

extension Policy.Requirements {
  func holds(_ conditions: PolicyConditions) -> Bool {
    if let isMetered, conditions.isMetered != isMetered { return false }
    if let isIdle, conditions.isIdle != isIdle { return false }
    if let isCharging {
      guard let power = conditions.power, (power == .external) == isCharging else { return false }
    }
    if batteryPercentBelow != nil || batteryPercentAtLeast != nil {
      guard case .battery(let percent?) = conditions.power else { return false }
      if let batteryPercentBelow, percent >= batteryPercentBelow { return false }
      if let batteryPercentAtLeast, percent < batteryPercentAtLeast { return false }
    }
    if linkBytesPerSecondBelow != nil || linkBytesPerSecondAtLeast != nil {
      guard let speed = conditions.linkBytesPerSecond else { return false }
      if let linkBytesPerSecondBelow, speed >= linkBytesPerSecondBelow { return false }
      if let linkBytesPerSecondAtLeast, speed < linkBytesPerSecondAtLeast { return false }
    }
    return true
  }
}

extension Duration {
  /// `0.1 s`, `5 s`
  var text: String {
    let seconds = Double(components.seconds) + Double(components.attoseconds) / 1e18
    let tenths = (seconds * 10).rounded() / 10
    return tenths == tenths.rounded() ? "\(Int64(tenths)) s" : "\(tenths) s"
  }
}
