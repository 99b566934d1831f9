/// Faults on purpose, for tests: `SF_OFFLOAD_FAULT=STEP[:N]`, N the call that it strikes (all, if it is left out), or
/// `random:SEED`, a step by chance at every call.
package struct FaultPlan: Sendable {
  package enum Step: String, CaseIterable, Sendable {
    // The clone ends, by its process's end or by a power cut.
    case cloneStarted = "clone-started"
    case cloneRunning = "clone-running"
    case cloneCollecting = "clone-collecting"
    /// At a random byte of the result.
    case cloneSending = "clone-sending"
    case clonePower = "clone-power"
    /// A kept clone, before it takes over what the program has changed.
    case cloneApplying = "clone-applying"
    // The link: home hangs up at a random byte, either way; a byte of the result is altered.
    case linkHome = "link-home"
    case linkOut = "link-out"
    case damage = "damage"
    // The same of what goes to a kept clone.
    case changesCut = "changes-cut"
    case changesDamage = "changes-damage"
    /// The clone lies, under a right seal.
    case lie = "lie"
    // The tracer at home is killed.
    case tracerEntry = "tracer-entry"
    case tracerForked = "tracer-forked"
    /// Before what the program has changed goes to a kept clone.
    case tracerSending = "tracer-sending"
    case tracerReceiving = "tracer-receiving"
    case tracerPreparing = "tracer-preparing"
    case tracerCommitting = "tracer-committing"
    /// In the midst of the pages.
    case tracerWriting = "tracer-writing"
    case tracerCommitted = "tracer-committed"
    /// The time given to the call is over at once.
    case deadline = "deadline"
  }

  private var step: Step?
  private var call: UInt64?
  private var seed: UInt64?

  package static let none = FaultPlan()

  private init() {}

  /// Nil: there is no such step.
  package init?(_ text: String) {
    let parts = text.split(separator: ":")
    guard let name = parts.first, parts.count <= 2 else { return nil }
    let number = parts.count == 2 ? UInt64(parts[1]) : nil
    if parts.count == 2, number == nil { return nil }
    if name == "random" {
      seed = number ?? 0
    } else {
      guard let step = Step(rawValue: String(name)) else { return nil }
      self.step = step
      call = number
    }
  }

  package func strikes(_ step: Step, call: UInt64) -> Bool {
    if let seed {
      let steps = Step.allCases
      return steps[Int(Self.mix(seed &* 0x9e37_79b9 &+ call) % UInt64(steps.count))] == step
    }
    return self.step == step && (self.call ?? call) == call
  }

  /// A number for the fault of a call, the same in home and clone.
  package func chance(call: UInt64, below limit: UInt64) -> UInt64 {
    limit == 0 ? 0 : Self.mix((seed ?? 0) &+ call &* 0xd1b5_4a32_d192_ed03 &+ 1) % limit
  }

  private static func mix(_ value: UInt64) -> UInt64 {
    var z = value &+ 0x9e37_79b9_7f4a_7c15
    z = (z ^ z &>> 30) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ z &>> 27) &* 0x94d0_49bb_1331_11eb
    return z ^ z &>> 31
  }
}
