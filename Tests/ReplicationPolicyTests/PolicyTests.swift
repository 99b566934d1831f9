import ReplicationPolicy
import Testing

/// The example of docs/offload-policies.md, and each of its rules.
@Suite struct PolicyTests {
  static let example = """
    {
      "version": 1,
      "rules": [
        {"name": "nearly empty", "when": {"charging": false, "battery_below": 15},
         "background_s": "never", "on_demand_s": "never"},
        {"name": "costs money", "when": {"metered": true}, "background_s": 900, "on_demand_s": 30,
         "link_share": 0.1},
        {"name": "slow", "when": {"link_mbit_below": 1}, "background_s": 60, "link_share": 0.5},
        {"name": "at the mains", "when": {"charging": true, "idle": false}, "background_s": 1},
        {"background_s": 10}
      ]
    }
    """

  private func example() throws -> Policy { try Policy(json: Array(Self.example.utf8)) }
  private let now = Duration.seconds(1000)
  private let last = Policy.LastCheckpoint(began: .seconds(990), took: .seconds(2))

  @Test func theFirstRuleThatFitsDecides() throws {
    let policy = try example()
    func decide(_ conditions: PolicyConditions, _ purpose: Policy.Purpose = .background) -> Policy.Decision {
      policy.decide(now: now, conditions: conditions, lastCheckpoint: last, for: purpose)
    }
    let empty = PolicyConditions(isMetered: true, power: .battery(percent: 14))
    #expect(decide(empty) == .notNow(why: "“nearly empty”: none in the background"))
    #expect(decide(empty, .onDemand) == .notNow(why: "“nearly empty”: none on demand"))
    let metered = PolicyConditions(isMetered: true, power: .battery(percent: 15))
    #expect(decide(metered) == .at(.seconds(1890), why: "“costs money”: every 900 s"))
    #expect(decide(metered, .onDemand) == .at(.seconds(1020), why: "“costs money”: on demand, 30 s apart"))
    #expect(decide(.init(linkBytesPerSecond: 124_999)) == .at(.seconds(1050), why: "“slow”: every 60 s"))
    #expect(decide(.init(linkBytesPerSecond: 125_000)) == .at(now, why: "rule 5: every 10 s"))
    let mains = PolicyConditions(isMetered: false, power: .external, isIdle: false)
    #expect(
      decide(mains)
        == .at(now, why: "“at the mains”: the last took 2 s, and transfers have 100 % of the time"))
    #expect(decide(mains, .onDemand) == .at(now, why: "“at the mains”: on demand"))
    // An idle one, and one of which nothing is known.
    for conditions in [PolicyConditions(power: .external, isIdle: true), PolicyConditions()] {
      #expect(decide(conditions) == .at(now, why: "rule 5: every 10 s"))
    }
  }

  @Test func whatIsNotKnownIsNeitherSoNorNotSo() throws {
    for condition in [
      #""metered": false"#, #""metered": true"#, #""charging": false"#, #""charging": true"#,
      #""idle": false"#, #""idle": true"#, #""battery_below": 100"#, #""battery_at_least": 0"#,
      #""link_mbit_below": 1000000"#, #""link_mbit_at_least": 0.001"#,
    ] {
      let policy = try Policy(
        json: Array(
          #"{"version":1,"rules":[{"when":{\#(condition)},"background_s":1},{"background_s":"never"}]}"#.utf8)
      )
      let decision = policy.decide(now: now, conditions: .init(), lastCheckpoint: nil)
      #expect(decision == .notNow(why: "rule 2: none in the background"), "\(condition)")
    }
  }

  @Test func aBatteryAtTheMainsIsNotAsked() throws {
    let policy = try Policy(
      json: Array(
        #"{"version":1,"rules":[{"when":{"battery_at_least":0},"background_s":1},{"background_s":"never"}]}"#
          .utf8))
    for (power, isDue) in [(PolicyConditions.Power.external, false), (.battery(percent: 0), true)] {
      let decision = policy.decide(now: now, conditions: .init(power: power), lastCheckpoint: nil)
      #expect((decision == .at(now, why: "rule 1: there was none yet")) == isDue)
    }
  }

  @Test func transfersTakeNoMoreThanTheirShareOfTheTime() throws {
    let policy = try Policy(rules: [.init(background: .seconds(10), onDemand: .seconds(1), linkShare: 0.25)])
    func next(took seconds: Double, _ purpose: Policy.Purpose) -> Policy.Decision {
      policy.decide(
        now: now, conditions: .init(), lastCheckpoint: .init(began: now, took: .seconds(seconds)),
        for: purpose)
    }
    #expect(next(took: 2.5, .background) == .at(now + .seconds(10), why: "rule 1: every 10 s"))
    #expect(
      next(took: 5, .background)
        == .at(now + .seconds(20), why: "rule 1: the last took 5 s, and transfers have 25 % of the time"))
    #expect(next(took: 5, .onDemand) == .at(now + .seconds(1), why: "rule 1: on demand, 1 s apart"))
  }

  /// Whatever the times: never in the past, never sooner than the period after the last one.
  @Test func timesOfAnySort() throws {
    var state: UInt64 = 11
    func random(_ bound: Int64) -> Duration {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return .milliseconds(Int64(state >> 33) % bound)
    }
    for _ in 0..<5000 {
      let period = random(100_000) + .milliseconds(100), began = random(1_000_000), took = random(200_000)
      let now = random(1_000_000)
      let policy = try Policy(rules: [.init(background: period, linkShare: 0.5)])
      guard
        case .at(let time, _) = policy.decide(
          now: now, conditions: .init(), lastCheckpoint: .init(began: began, took: took))
      else {
        Issue.record("no time for \(period), \(began), \(took)")
        return
      }
      let due = began + max(period, took * 2)
      #expect(time == (began > now ? now : max(now, due)))
      // Asked again at that time, it is due.
      let again = policy.decide(
        now: time, conditions: .init(), lastCheckpoint: .init(began: began, took: took))
      if case .at(let later, _) = again { #expect(later == time) } else { Issue.record("\(again)") }
    }
  }

  @Test(arguments: [
    ("", "it is not JSON. Look for a missing comma or quote."),
    ("[]", "it is no object. Write it in braces."),
    ("{}", "“version” is not 1, the one that this version reads. Write \"version\": 1."),
    (
      #"{"version":2,"rules":[]}"#,
      "“version” is not 1, the one that this version reads. Write \"version\": 1."
    ),
    (#"{"version":1}"#, "it has no list “rules”. Give it one."),
    (#"{"version":1,"rules":[]}"#, "it has no rules. Give it one at least."),
    (
      #"{"version":1,"rules":[{"background_s":1}],"x":1}"#,
      "“x” is not known. There are version, name, metered, rules."
    ),
    (#"{"version":1,"rules":[7]}"#, "rule 1 is no object. Write it in braces."),
    (#"{"version":1,"rules":[{}]}"#, "rule 1: “background_s” is missing. Give seconds, or \"never\"."),
    (
      #"{"version":1,"rules":[{"background_s":0}]}"#,
      "rule 1: “background_s” is no number from 0.1 to 604800, nor is it \"never\". Write one."
    ),
    (
      #"{"version":1,"rules":[{"background_s":"often"}]}"#,
      "rule 1: “background_s” is no number from 0.1 to 604800, nor is it \"never\". Write one."
    ),
    (
      #"{"version":1,"rules":[{"background_s":1,"perod":2}]}"#,
      "rule 1: “perod” is not known. There are name, when, background_s, on_demand_s, link_share."
    ),
    (
      #"{"version":1,"rules":[{"background_s":1,"link_share":0}]}"#,
      "rule 1: “link_share” is no number from 0.001 to 1. Write one."
    ),
    (
      #"{"version":1,"rules":[{"when":{"metered":1},"background_s":1},{"background_s":1}]}"#,
      "rule 1, when: “metered” is neither true nor false. Write one of them, or leave it out."
    ),
    (
      #"{"version":1,"rules":[{"when":{"battery_below":101},"background_s":1},{"background_s":1}]}"#,
      "rule 1, when: “battery_below” is no number from 1 to 100. Write one."
    ),
    (
      #"{"version":1,"rules":[{"when":{"charging":true,"battery_below":50},"background_s":1},{"background_s":1}]}"#,
      "rule 1, when: it asks for the battery of a device that charges. Leave out one of them."
    ),
    (
      #"{"version":1,"rules":[{"when":{"battery_at_least":50,"battery_below":50},"background_s":1},{"background_s":1}]}"#,
      "rule 1, when: no battery has at least 50 and below 50 percent. Mend the bounds."
    ),
    (
      #"{"version":1,"rules":[{"when":{"metered":true},"background_s":1}]}"#,
      "its last rule has conditions, so that none may fit. End it with a rule without “when”."
    ),
    (
      #"{"version":1,"rules":[{"background_s":1},{"background_s":2}]}"#,
      "rule 1 fits always, so that those behind it never do. Give it conditions."
    ),
    (
      #"{"version":1,"rules":[{"name":"","background_s":2}]}"#,
      "rule 1: “name” is no text of 1 to 80 letters. Write one, or leave it out."
    ),
  ])
  func whatIsWrongIsSaidWithItsPlace(json: String, why: String) {
    let error = #expect(throws: PolicyError.self) { try Policy(json: Array(json.utf8)) }
    #expect(error?.description == why)
  }

  /// The example with a change in it, and the line of that.
  @Test(arguments: [
    ("\"version\": 1,", "\"version\": 3,", 2), ("\"rules\": [", "\"rules\": 5, \"more\": [", 3),
    ("\"nearly empty\"", "7", 4), ("\"charging\": false,", "\"charging\": false", 4),
    ("\"on_demand_s\": \"never\"", "\"on_demand_s\": \"nevr\"", 5), ("900,", "900, \"name\": \"again\",", 6),
    ("\"link_share\": 0.1", "\"link_share\": 00.1", 7), ("\"background_s\": 60", "\"backgroundS\": 60", 8),
    ("\"background_s\": 10}", "\"background_s\": 10, \"perod\": 1}", 10),
    ("{\"background_s\": 10}", "{\"when\": {\"idle\": true}, \"background_s\": 10}", 10),
    ("\"when\": {\"metered\": true}", "\"when\": {}", 6), ("10}\n  ]\n}", "10}\n  ]\n", 12),
  ])
  func whatIsWrongHasALine(part: String, change: String, line: Int) throws {
    let broken = Self.example.replacing(part, with: change)
    try #require(broken != Self.example)
    let error = #expect(throws: PolicyError.self) { try Policy(json: Array(broken.utf8)) }
    #expect(error?.line == line, "\(error?.description ?? "")")
  }

  @Test func aNameAndTheKindOfTheLink() throws {
    let rules = #""rules":[{"background_s":1.5e1}]"#
    let named = try Policy(
      json: Array(#"{"version":1,"name":"Z\u00fcg\ud83d\ude82 \"a\"","metered":false,\#(rules)}"#.utf8))
    #expect(named.name == "Züg🚂 \"a\"" && named.isMetered == false)
    #expect(named.rules == [.init(background: .seconds(15))])
    let other = try Policy(json: Array(#"{"version":1,\#(rules)}"#.utf8))
    #expect(other.name.isEmpty && other.isMetered == nil)
    for wrong in ["\\ud83d", "\\x", "\n", "\\u12g4"] {
      #expect(throws: PolicyError.self) {
        try Policy(json: Array(("{\"version\":1,\"name\":\"" + wrong + "\"," + rules + "}").utf8))
      }
    }
  }

  @Test func noFileOfAnySizeIsTaken() {
    let rule = #"{"when":{"metered":true},"background_s":1},"#
    let many = #"{"version":1,"rules":["# + String(repeating: rule, count: 100) + #"{"background_s":1}]}"#
    let error = #expect(throws: PolicyError.self) { try Policy(json: Array(many.utf8)) }
    #expect(error?.description == "it has 101 rules. Keep it to 100.")
    let large = [UInt8](repeating: 32, count: Policy.fileLimit + 1)
    #expect(throws: PolicyError.self) { try Policy(json: large) }
    // Cut anywhere it is no policy.
    let whole = Array(Self.example.utf8)
    for length in 0..<whole.count - 1 {
      #expect(throws: PolicyError.self) { try Policy(json: Array(whole[..<length])) }
    }
  }
}
