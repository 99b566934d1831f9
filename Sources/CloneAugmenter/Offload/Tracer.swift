import Augmenter
import CTrace
import Glibc

/// Follows the program from stop to stop.
final class Tracer {
  let options: Options
  let shared: UnsafeMutablePointer<ct_shared>
  let journal: Journal
  let streamPath: StreamPath
  let tracee: Tracee
  let breakpoints: Breakpoints
  let tickets: Tickets
  let decider: Decider
  /// A call that runs at home, and how long it takes is to be learnt.
  var homeCall: HomeCall?
  /// The clone of the last call that went, if it is kept.
  var kept: KeptClone?
  private let symbols: Symbols
  /// Children that share the program's memory until they execute another.
  private var borrowers: Set<Int32> = []
  /// Stopped before it was told whose they are.
  private var early: Set<Int32> = []
  /// Somebody else has stopped the program.
  private var isStoppedByOthers = false
  private var ownStops = 0
  /// Takes the breakpoints out at the next opportunity and lets the program go.
  private var letsGo = false

  init(
    _ options: Options, _ shared: UnsafeMutablePointer<ct_shared>, _ journal: Journal, _ decider: Decider,
    streamPath: StreamPath
  ) {
    self.options = options
    self.shared = shared
    self.journal = journal
    self.streamPath = streamPath
    tracee = Tracee(pid: shared.pointee.program)
    breakpoints = Breakpoints(shared: shared, tracee: tracee)
    symbols = Symbols(options.block, tracee, breakpoints)
    tickets = Tickets(shared, host: options.host)
    self.decider = decider
  }

  /// The program has stopped itself before its execve.
  func begin() throws {
    try seize(tracee.pid)
    try go(tracee.pid)
    try follow()
  }

  /// After the death of the tracer before: every thread stands still.
  func takeOver(letGo: Bool) throws {
    letsGo = letGo
    var seized: Set<Int32> = []
    while true {
      let new = tracee.threads().filter { !seized.contains($0) }
      if new.isEmpty { break }
      for tid in new {
        seized.insert(tid)
        try seize(tid)
      }
    }
    try tracee.open()
    breakpoints.place(in: tracee)
    tickets.giveUp()
    try settle()
    if letsGo {
      breakpoints.lift(from: tracee)
      for tid in seized { _ = ct_detach(tid, 0) }
      kill(tracee.pid, SIGCONT)
      throw ProgramEnded()
    }
    for tid in seized { _ = ct_continue(tid, 0) }
    try follow()
  }

  private func seize(_ tid: Int32) throws {
    let result = ct_seize(tid)
    guard result == 0 else {
      if result == -ESRCH { throw ProgramEnded() }
      throw SystemError("trace it", -result)
    }
    _ = ct_interrupt(tid)
    var event = ct_event()
    guard ct_wait(tid, 0, &event) == 1, event.stop != Int32(CT_EXITED.rawValue) else { throw ProgramEnded() }
  }

  func go(_ tid: Int32, _ signal: Int32 = 0) throws(ProgramEnded) {
    if ct_continue(tid, signal) < 0 && tid == tracee.pid { throw ProgramEnded() }
  }

  /// The program is over; what it had is given back.
  func end() {
    shared.pointee.ended = 1
    decider.save()
    kept?.end()
    guard tickets.areHeld else { return }
    // Nobody waits for it: not for the program, and not for its output.
    guard ct_fork() == 0 else { return }
    ct_stand_alone()
    tickets.giveUp()
  }

  private func follow() throws {
    while true {
      var event = ct_event()
      guard ct_wait(-1, 0, &event) == 1 else { throw ProgramEnded() }
      try handle(event)
    }
  }

  /// A ticket for the next call, if there will be one that needs it.
  func askAhead() {
    if shared.pointee.found != 0, kept == nil, decider.wantsTicketAhead { tickets.askAhead() }
  }

  /// The clone of the last call is not needed any more.
  func releaseClone() {
    kept?.end()
    kept = nil
    tickets.release()
  }

  /// Events of other threads while one is away.
  func serveOthers() throws {
    var event = ct_event()
    while ct_wait(-1, 1, &event) == 1 { try handle(event) }
  }

  private func handle(_ event: ct_event) throws {
    let tid = event.tid
    switch UInt32(event.stop) {
    case CT_EXITED.rawValue:
      borrowers.remove(tid)
      if tid == tracee.pid { throw ProgramEnded() }
    case CT_SIGNAL.rawValue: try signalled(tid, event.value)
    case CT_STOPPED.rawValue: try stopped(tid, event.value)
    case CT_CLONED.rawValue where tracee.threads().contains(Int32(event.message)): try go(tid)
    case CT_FORKED.rawValue, CT_CLONED.rawValue:
      release(Int32(event.message), sharesMemory: event.stop == Int32(CT_CLONED.rawValue))
      try go(tid)
    case CT_VFORKED.rawValue:
      release(Int32(event.message), sharesMemory: true)
      try go(tid)
    case CT_EXECUTED.rawValue where tid == tracee.pid:
      try tracee.open()
      homeCall = nil
      if kept != nil { releaseClone() }
      symbols.programStarts()
      askAhead()
      try go(tid)
    case CT_EXECUTED.rawValue:
      borrowers.remove(tid)
      _ = ct_detach(tid, 0)
    default: try go(tid)
    }
  }

  private func signalled(_ tid: Int32, _ signal: Int32) throws {
    var code: Int32 = 0
    if signal == SIGTRAP, ct_signal_code(tid, &code) == 0, code == 0x80 || code == 1 {
      var registers = try tracee.registers(tid)
      if let breakpoint = breakpoints.find(registers.rip &- 1) {
        registers.rip = breakpoint.address
        return try hit(tid, registers, breakpoint)
      }
    }
    switch signal {
    case SIGSTOP where ownStops > 0: ownStops -= 1
    case SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU: isStoppedByOthers = true
    case SIGCONT: standInGroupStop()
    default: break
    }
    try go(tid, signal)
  }

  private func stopped(_ tid: Int32, _ signal: Int32) throws {
    if isStoppedByOthers, signal != SIGTRAP {
      _ = ct_listen(tid)
      return
    }
    if isStoppedByOthers {
      isStoppedByOthers = false
      standInGroupStop()
    }
    if tid != tracee.pid, !borrowers.contains(tid), !tracee.threads().contains(tid) {
      early.insert(tid)
      return
    }
    try go(tid)
  }

  /// SIGCONT has ended the group stop that keeps the program still where its tracer dies.
  private func standInGroupStop() {
    ownStops += 1
    kill(tracee.pid, SIGSTOP)
  }

  /// A child process is nobody's to trace. Its memory has the breakpoints, too.
  private func release(_ child: Int32, sharesMemory: Bool) {
    if early.remove(child) == nil {
      var event = ct_event()
      guard ct_wait(child, 0, &event) == 1, event.stop != Int32(CT_EXITED.rawValue) else { return }
    }
    if sharesMemory {
      borrowers.insert(child)
      _ = ct_continue(child, 0)
      return
    }
    let process = Tracee(pid: child)
    if (try? process.open()) != nil { breakpoints.lift(from: process) }
    _ = ct_detach(child, 0)
  }

  private func hit(_ tid: Int32, _ registers: user_regs_struct, _ breakpoint: ct_breakpoint) throws {
    try tracee.setRegisters(tid, registers)
    switch UInt32(breakpoint.kind) {
    case CT_START.rawValue, CT_LOADER.rawValue:
      symbols.librariesChanged()
      askAhead()
    case CT_CC_START.rawValue where !isNamed(registers.rdi): break
    case CT_RETURN.rawValue:
      homeCallReturns(tid, registers)
    default:
      if !borrowers.contains(tid), tracee.threads().contains(tid) {
        return try called(tid, registers, breakpoint)
      }
    }
    try stepOver(tid, registers, breakpoint)
    try go(tid)
  }

  private func isNamed(_ address: UInt64) -> Bool {
    tracee.text(address, limit: 512).map { $0.elementsEqual(options.block.utf8) } ?? false
  }

  /// Past the entry's breakpoint; the thread stands there.
  func stepOver(
    _ tid: Int32, _ registers: user_regs_struct, _ breakpoint: ct_breakpoint
  ) throws(ProgramEnded) {
    var registers = registers
    guard breakpoints.find(breakpoint.address) != nil else { return }
    if breakpoints.emulate(breakpoint, &registers) { return try tracee.setRegisters(tid, registers) }
    let mask = try tracee.mask(tid)
    try tracee.setMask(tid, ~0)
    tracee.write(breakpoint.address, [breakpoint.original])
    var event = ct_event()
    repeat {
      guard ct_step(tid) == 0, ct_wait(tid, 0, &event) == 1, event.stop != Int32(CT_EXITED.rawValue) else {
        throw ProgramEnded()
      }
    } while event.stop != Int32(CT_SIGNAL.rawValue)
    tracee.write(breakpoint.address, [0xcc])
    try tracee.setMask(tid, mask)
    if event.value != SIGTRAP {
      // The instruction itself was at fault: the signal is the program's.
      try go(tid, event.value)
    }
  }
}
