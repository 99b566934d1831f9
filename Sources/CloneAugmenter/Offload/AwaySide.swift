import Augmenter
import CTrace
import Glibc

/// The Augmenter: this process's copy in the clone. It runs the block and sends home what the block left behind; then
/// it waits for the clone to be ended. Whatever goes wrong here, home drops the call.
final class AwaySide {
  let tracer: Tracer
  var entry: user_regs_struct
  var breakpoint: ct_breakpoint
  private let files: AwayFiles
  /// A copy of the program as it was at the entry, which never runs: what differs from it has changed.
  private(set) var base = Tracee(pid: 0)
  private var mappingsBefore: [Mapping] = []
  private var state = BlockState()
  /// It has a call that is not its first.
  var isKept = false
  var tracee: Tracee { tracer.tracee }
  var tid: Int32 { tracer.shared.pointee.tid }
  var call: UInt64 { tracer.shared.pointee.call }
  /// Whether the process has this one thread.
  private let alone: Bool
  private static let trap: [UInt8] = [0xcc]

  struct Failed: Error { var reason: String }

  init(_ tracer: Tracer, _ breakpoint: ct_breakpoint) {
    self.tracer = tracer
    self.breakpoint = breakpoint
    entry = tracer.shared.pointee.entry
    alone = tracer.options.merge == .pages
    files = AwayFiles(tracer.tracee)
    tracer.shared.pointee.is_away = 1
  }

  func run() -> Never {
    do {
      strike(.cloneStarted)
      try prepare()
      while true {
        let begin = monotonicMicroseconds()
        try runBlock()
        let end = monotonicMicroseconds()
        state.runMicroseconds = end - begin
        try send(since: end)
        // Home ends this clone, or has another call for it.
        try awaitNextCall()
      }
    } catch {
      // Nobody reads this process's own output; the clone's console is kept at its host.
      let console = open("/dev/console", O_WRONLY | O_NOCTTY | O_CLOEXEC)
      writeAll(console, Array("sf-offload: the block is given up: \(error)\n".utf8))
      _exit(1)
    }
  }

  /// A test's fault: the clone ends.
  func strike(_ step: FaultPlan.Step) {
    if tracer.options.faults.strikes(step, call: call) { _exit(1) }
    if step == .cloneRunning, tracer.options.faults.strikes(.clonePower, call: call) { ct_power_off() }
  }

  // MARK: before

  private func prepare() throws {
    try tracee.setMask(tid, ~0)
    try installFilter(SystemCallPolicy.filter(alone: alone))
    try beginCall()
    files.begin()
  }

  /// The thread stands at the entry; its signals are blocked. On return it can be let run.
  func beginCall() throws {
    guard let mappings = tracee.mappings() else { throw ProgramEnded() }
    mappingsBefore = mappings
    state = BlockState()
    state.breakBefore = UInt64(bitPattern: try tracee.call(tid, SystemCallPolicy.brk, 0))
    tracer.breakpoints.place(in: tracee)
    guard let copy = try tracee.copy(tid) else { throw Failed(reason: "no memory") }
    base = copy
    try tracee.setRegisters(tid, entry)
    try tracee.setMask(tid, tracer.shared.pointee.mask)
    // A call of the block within the block runs here.
    tracer.breakpoints.lift(from: tracee)
  }

  /// A page of the program's for struct sock_fprog, and the filter behind it.
  func installFilter(_ filter: [UInt8]) throws {
    let made = try tracee.call(tid, 9, 0, 4096, 3, 0x22, ~0, 0)
    guard made > 0 else { throw Failed(reason: "no memory") }
    let page = UInt64(made)
    var bytes = [UInt8](repeating: 0, count: 16)
    let count = filter.count / 8
    bytes[0] = UInt8(count & 255)
    bytes[1] = UInt8(count >> 8)
    withUnsafeBytes(of: page + 16) { bytes.replaceSubrange(8..<16, with: $0) }
    guard tracee.write(page, bytes + filter) else { throw Failed(reason: "no memory") }
    // Not needed by root; the clone is gone before anybody could miss the privileges.
    _ = try tracee.call(tid, 157, 38, 1, 0, 0, 0)
    guard try tracee.call(tid, 317, 1, 0, page) == 0 else { throw Failed(reason: "no seccomp") }
    _ = try tracee.call(tid, 11, page, 4096)
  }

  // MARK: the block

  private func runBlock() throws {
    let isMarked = breakpoint.kind == UInt8(CT_CC_START.rawValue)
    let end: UInt64
    if isMarked {
      guard let stop = tracer.breakpoints.first(CT_CC_STOP) else {
        throw Failed(reason: "there is no cc_stop")
      }
      end = stop.address
    } else {
      guard let address = tracee.word(entry.rsp) else { throw Failed(reason: "its stack is not there") }
      end = address
    }
    guard let original = tracee.read(end, 1) else { throw Failed(reason: "its caller is not there") }
    tracee.write(end, Self.trap)
    defer { tracee.write(end, original) }
    strike(.cloneRunning)
    guard ct_continue(tid, 0) == 0 else { throw ProgramEnded() }
    while true {
      var event = ct_event()
      guard ct_wait(tid, 0, &event) == 1, event.stop != Int32(CT_EXITED.rawValue) else {
        throw ProgramEnded()
      }
      switch UInt32(event.stop) {
      case CT_SECCOMP.rawValue:
        if try mayRunHere() {
          state.asksMore = true
          break
        }
        return try leaveSystemCall()
      case CT_SIGNAL.rawValue:
        var registers = try tracee.registers(tid)
        guard event.value == SIGTRAP, registers.rip &- 1 == end else {
          // Home has the signal, too, or the same fault again.
          return try leave(.signal, registers)
        }
        registers.rip = end
        if isMarked || registers.rsp == entry.rsp &+ 8 { return try leave(.returned, registers) }
        try step(over: end, registers, original)
      default: break
      }
      guard ct_continue(tid, 0) == 0 else { throw ProgramEnded() }
    }
  }

  /// An inner call has returned to the same place.
  private func step(over end: UInt64, _ registers: user_regs_struct, _ original: [UInt8]) throws {
    try tracee.setRegisters(tid, registers)
    let mask = try tracee.mask(tid)
    try tracee.setMask(tid, ~0)
    tracee.write(end, original)
    var event = ct_event()
    repeat {
      guard ct_step(tid) == 0, ct_wait(tid, 0, &event) == 1, event.stop != Int32(CT_EXITED.rawValue) else {
        throw ProgramEnded()
      }
    } while event.stop != Int32(CT_SIGNAL.rawValue)
    guard event.value == SIGTRAP else { throw Failed(reason: "a fault at its return") }
    tracee.write(end, Self.trap)
    try tracee.setMask(tid, mask)
  }

  /// At the filter's stop: whether the call gives the same here as at home.
  private func mayRunHere() throws -> Bool {
    guard !isKept else { return false }
    let registers = try tracee.registers(tid)
    switch SystemCallPolicy.question(registers.orig_rax, alone: alone) {
    case .home: return false
    case .plainFile: return files.isPlain(registers.rdi)
    case .closesPlainFile: return files.isPlain(registers.rdi)
    case .mapFile:
      return registers.r10 & 0x3 == 2 && registers.r10 & 0x20 == 0 && files.isPlain(registers.r8)
    case .signalAction: return noteAction(registers)
    case .path(let directory, let path, let opens):
      let arguments = [registers.rdi, registers.rsi, registers.rdx]
      if opens, !AwayFiles.onlyReads(arguments[path + 1]) { return false }
      return files.isSame(
        arguments[path], in: directory < 0 ? UInt64(bitPattern: -100) : arguments[directory])
    }
  }

  private func noteAction(_ registers: user_regs_struct) -> Bool {
    guard (1...64).contains(registers.rdi), registers.r10 == 8 else { return false }
    if registers.rsi == 0 { return true }
    guard registers.rdi != UInt64(SIGKILL), registers.rdi != UInt64(SIGSTOP),
      let action = tracee.read(registers.rsi, 32)
    else { return false }
    state.handlers.removeAll { $0.signal == UInt32(registers.rdi) }
    state.handlers.append(.init(signal: UInt32(registers.rdi), action: action))
    return true
  }

  /// The call is not made here: the thread goes home as it stood before it.
  private func leaveSystemCall() throws {
    var registers = try tracee.registers(tid)
    registers.rip &-= 2
    registers.rax = registers.orig_rax
    registers.orig_rax = ~0
    try leave(.systemCall, registers)
  }

  /// Registers first, for in the stop that follows they may be changed without an effect on a call under way.
  private func leave(_ end: BlockState.End, _ registers: user_regs_struct) throws {
    state.end = end
    state.mask = try tracee.mask(tid)
    try tracee.setRegisters(tid, registers)
    try tracee.setMask(tid, ~0)
    _ = ct_interrupt(tid)
    var event = ct_event()
    repeat {
      guard ct_continue(tid, 0) == 0, ct_wait(tid, 0, &event) == 1, event.stop != Int32(CT_EXITED.rawValue)
      else {
        throw ProgramEnded()
      }
    } while event.stop != Int32(CT_STOPPED.rawValue)
    withUnsafeBytes(of: registers) { state.registers = Array($0) }
    try state.takeVectors(of: tid)
    state.breakAfter = UInt64(bitPattern: try tracee.call(tid, SystemCallPolicy.brk, 0))
    if !isKept { state.files = try files.changes() }
    guard let mappings = tracee.mappings() else { throw ProgramEnded() }
    state.mappings = mappings
  }
  // MARK: after

  private func send(since end: UInt64) throws {
    // As home has them, and as the copy does.
    tracer.breakpoints.place(in: tracee)
    strike(.cloneCollecting)
    let stream = open(tracer.streamPath.result, O_WRONLY | O_CLOEXEC)
    guard stream >= 0 else { throw SystemError("open the stream home") }
    defer { close(stream) }
    let faults = tracer.options.faults
    let cut =
      faults.strikes(.cloneSending, call: call) ? Int(faults.chance(call: call, below: 6000)) : Int.max
    var sent = 0
    let writer = ResultStream.Writer(
      call: call, entry: entry.rip, withBefore: !alone, key: tracer.sealKey
    ) { bytes in
      if sent + bytes.count >= cut {
        writeAll(stream, Array(bytes[..<(cut - sent)]))
        _exit(1)
      }
      sent += bytes.count
      // Home hung up: it has ended this clone, or will.
      if !writeAll(stream, bytes) { while true { sleep(1000) } }
    }
    try Collector(
      ProgramChange(program: tracee, base: base, mappingsBefore: mappingsBefore, state: state),
      withBefore: !alone, writer: writer
    ).collect(since: end, lie: faults.strikes(.lie, call: call) ? faults.chance(call: call, below: 3) : nil)
  }
}

extension BlockState {
  mutating func takeVectors(of tid: Int32) throws {
    var bytes = [UInt8](repeating: 0, count: 16 << 10)
    let count = ct_get_xstate(tid, &bytes, bytes.count)
    guard count > 0 else { throw SystemError("read its vector registers", Int32(-count)) }
    xstate = Array(bytes[..<count])
  }
}
