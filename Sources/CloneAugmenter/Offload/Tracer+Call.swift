import Augmenter
import CTrace
import Glibc

/// A call of the block: away and back, or here.
extension Tracer {
  func called(_ tid: Int32, _ entry: user_regs_struct, _ breakpoint: ct_breakpoint) throws {
    // While one thread's call is away, others' run here; and so do those that a call at home makes.
    if shared.pointee.phase != CT_RUNNING.rawValue || isWithinHomeCall(tid, entry) {
      shared.pointee.counters.calls += 1
      shared.pointee.counters.ran_at_home += 1
      try stepOver(tid, entry, breakpoint)
      return try go(tid)
    }
    tickets.look()
    shared.pointee.found = 1
    shared.pointee.call += 1
    shared.pointee.counters.calls += 1
    shared.pointee.entry = entry
    shared.pointee.tid = tid
    shared.pointee.mask = try tracee.mask(tid)
    shared.pointee.phase = CT_AT_ENTRY.rawValue
    var measure = CallMeasure()
    switch decider.decide(canGo: canGo()) {
    case .home: break
    case .away(let limit):
      // Out of the stop at the breakpoint: there its signal would end the program if this tracer died.
      try tracee.park(tid, isStopped: true)
      strike(.tracerEntry)
      measure = try HomeSide(self, limitMicroseconds: limit, breakpoint).run()
    }
    decider.learn(measure)
    note(measure)
    askAhead()
    if !measure.isMerged { try runHere(breakpoint) }
    shared.pointee.phase = CT_RUNNING.rawValue
    try go(tid)
  }

  /// The thread stands at the entry as it came there, but for this breakpoint.
  private func runHere(_ breakpoint: ct_breakpoint? = nil) throws(ProgramEnded) {
    let tid = shared.pointee.tid
    let entry = shared.pointee.entry
    try tracee.setRegisters(tid, entry)
    try tracee.setMask(tid, shared.pointee.mask)
    if let breakpoint, decider.measuresHome { measureHome(tid, entry, breakpoint) }
    if let breakpoint = breakpoints.find(entry.rip) { try stepOver(tid, entry, breakpoint) }
  }

  /// What the clone could not give back rightly has to be computed here.
  private func canGo() -> Bool {
    guard options.mode != .never, let mappings = tracee.mappings() else { return false }
    if options.merge == .pages, tracee.threads().count > 1 { return false }
    return !mappings.contains { $0.isWritableShared }
  }

  private func note(_ measure: CallMeasure) {
    switch measure.outcome {
    case .home: shared.pointee.counters.ran_at_home += 1
    case .merged, .cameHomeEarly: shared.pointee.counters.offloaded += 1
    case .dropped, .gaveUp:
      shared.pointee.counters.ran_at_home += 1
      shared.pointee.counters.dropped += 1
    case .conflict:
      shared.pointee.counters.ran_at_home += 1
      shared.pointee.counters.conflicts += 1
    }
    if measure.outcome == .cameHomeEarly { shared.pointee.counters.came_home_early += 1 }
    shared.pointee.counters.forward_us += measure.forwardMicroseconds
    shared.pointee.counters.run_us += measure.runMicroseconds
    shared.pointee.counters.merge_us += measure.mergeMicroseconds
    shared.pointee.counters.bytes_home += measure.bytesHome
    if measure.isMerged, measure.way == .kept { shared.pointee.counters.kept_calls += 1 }
  }

  /// Brings a call that a dead tracer left to an end, or back to its beginning.
  func settle() throws {
    let phase = shared.pointee.phase
    guard phase != CT_RUNNING.rawValue else { return }
    let tid = shared.pointee.tid
    let merge = Merge(self, shared.pointee.tid)
    switch phase {
    case CT_COMMITTING.rawValue:
      let result = try BlockResult(
        journal.bytes(Int(shared.pointee.result_bytes)), call: shared.pointee.call,
        entry: shared.pointee.entry.rip, withBefore: options.merge == .words, key: sealKey)
      try tracee.setMask(tid, ~0)
      try merge.commit(result)
      note(CallMeasure(outcome: .merged))
    case CT_PREPARING.rawValue:
      try tracee.setMask(tid, ~0)
      try merge.undo()
      note(CallMeasure(outcome: .dropped))
      try runHere()
    default:
      note(CallMeasure(outcome: .dropped))
      try runHere()
    }
    shared.pointee.phase = CT_RUNNING.rawValue
  }

  var sealKey: (UInt64, UInt64) {
    let bytes = UnsafeRawPointer(ct_key(shared))
    return (bytes.loadUnaligned(as: UInt64.self), bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
  }

  /// Of what goes to a kept clone.
  var changesKey: (UInt64, UInt64) { (sealKey.0 ^ 0x7365_676e_6168_6366, sealKey.1) }

  /// A test's fault: this tracer is killed, at home. Not twice by one call.
  func strike(_ step: FaultPlan.Step) {
    guard shared.pointee.is_away == 0, shared.pointee.struck != shared.pointee.call,
      options.faults.strikes(step, call: shared.pointee.call)
    else { return }
    shared.pointee.struck = shared.pointee.call
    kill(getpid(), SIGKILL)
  }
}
