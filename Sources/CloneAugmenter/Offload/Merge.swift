import Augmenter
import CTrace
import Glibc

/// Writes a result into the sleeping program, as redo: what can fail is done first and can be taken back; what follows
/// may be done again from its beginning, by another tracer too.
final class Merge {
  /// The program is as it was.
  struct Refused: Error { var reason: String }
  struct Conflict: Error {}

  let tracer: Tracer
  let tid: Int32
  /// A page of the program's for what system calls point at; 0: none yet.
  var scratch: UInt64 = 0
  var tracee: Tracee { tracer.tracee }
  private var shared: UnsafeMutablePointer<ct_shared> { tracer.shared }

  init(_ tracer: Tracer, _ tid: Int32) {
    self.tracer = tracer
    self.tid = tid
  }

  // MARK: what can be taken back

  func prepare(_ result: BlockResult) throws {
    let state = result.state
    try tracee.setMask(tid, ~0)
    guard let before = tracee.mappings() else { throw ProgramEnded() }
    let breakNow = UInt64(bitPattern: try tracee.call(tid, SystemCallPolicy.brk, 0))
    guard breakNow == state.breakBefore else { throw Refused(reason: "its break has moved") }
    try checkMemory(result)
    if result.withBefore { try checkWords(result) }
    for case .opened(_, _, _, let path) in state.files where access(path, R_OK) != 0 {
      throw Refused(reason: "\(path) can not be opened")
    }
    var kept = BlockState()
    kept.registers = [UInt8](repeating: 0, count: BlockState.registerBytes)
    kept.mappings = before
    kept.breakBefore = breakNow
    let bytes = kept.encoded()
    guard tracer.journal.keepBefore(bytes) else { throw Refused(reason: "no room for the journal") }
    shared.pointee.before_bytes = UInt64(bytes.count)
    shared.pointee.phase = CT_PREPARING.rawValue
    tracer.strike(.tracerPreparing)
    do {
      try add(
        MapDifference(from: before, to: state.mappings, breakBefore: breakNow, breakAfter: state.breakAfter),
        state)
      if result.withBefore { return }
      guard let now = tracee.mappings() else { throw ProgramEnded() }
      let rest = MapDifference(
        from: now, to: state.mappings, breakBefore: max(breakNow, state.breakAfter),
        breakAfter: state.breakAfter)
      guard rest.added.isEmpty, rest.stackGrowth == nil else {
        throw Refused(reason: "its mappings can not be made")
      }
    } catch let refused as Refused {
      try undo()
      shared.pointee.phase = CT_AT_ENTRY.rawValue
      throw refused
    }
  }

  private func add(_ difference: MapDifference, _ state: BlockState) throws {
    if state.breakAfter > state.breakBefore {
      let reached = try tracee.call(tid, SystemCallPolicy.brk, state.breakAfter)
      guard UInt64(bitPattern: reached) == state.breakAfter else { throw Refused(reason: "no memory") }
    }
    for mapping in difference.added { try map(mapping, replacing: false) }
    if let growth = difference.stackGrowth, !tracee.write(growth.lowerBound, [0]) {
      throw Refused(reason: "its stack can not grow")
    }
  }

  func undo() throws {
    guard let bytes = tracer.journal.takeBefore(Int(shared.pointee.before_bytes)) else {
      throw SystemError("read the journal")
    }
    let before = try bytes.withUnsafeBytes { try BlockState(decoding: $0) }
    guard let now = tracee.mappings() else { throw ProgramEnded() }
    let breakNow = UInt64(bitPattern: try tracee.call(tid, SystemCallPolicy.brk, 0))
    if breakNow != before.breakBefore { _ = try tracee.call(tid, SystemCallPolicy.brk, before.breakBefore) }
    let difference = MapDifference(
      from: now, to: before.mappings, breakBefore: breakNow, breakAfter: before.breakBefore)
    for range in difference.removed { try unmap(range) }
  }

  /// Pages are made only when they are written; then it would be too late to find that there is no memory for them.
  private func checkMemory(_ result: BlockResult) throws {
    var pages = 0
    for body in result.pages {
      var at = 0
      while at < body.count,
        let (record, next) = PageRecords.next(body, at: at, withBefore: result.withBefore)
      {
        if case .whole(_, let count, _) = record { pages += count } else { pages += 1 }
        at = next
      }
    }
    shared.pointee.counters.pages_home += UInt64(pages)
    guard let text = contents(of: "/proc/meminfo"), let free = field("MemAvailable", of: text, base: 10)
    else {
      throw Refused(reason: "the free memory is not known")
    }
    guard UInt64(pages) * 4 + 4096 < free else { throw Refused(reason: "no memory") }
  }

  /// Before anything is written: no word that the block changed was changed here, too.
  private func checkWords(_ result: BlockResult) throws {
    var page = [UInt8](repeating: 0, count: PageRecords.pageSize)
    for body in result.pages {
      var at = 0
      while at < body.count, let (record, next) = PageRecords.next(body, at: at, withBefore: true) {
        at = next
        guard case .words(let address, let runs, var offset) = record,
          page.withUnsafeMutableBytes({ tracee.read(address, into: $0) })
        else { throw Conflict() }
        for _ in 0..<runs {
          guard let (run, following) = PageRecords.run(body, at: offset, withBefore: true) else {
            throw Conflict()
          }
          offset = following
          for index in 0..<run.count {
            let home = page.withUnsafeBytes {
              $0.loadUnaligned(fromByteOffset: (run.first + index) * 8, as: UInt64.self)
            }
            let old = body.loadUnaligned(fromByteOffset: run.offsetBefore + index * 8, as: UInt64.self)
            let new = body.loadUnaligned(fromByteOffset: run.offset + index * 8, as: UInt64.self)
            if home != old && home != new { throw Conflict() }
          }
        }
      }
    }
  }

  // MARK: what is done again if need be

  /// On return the thread is the block's at its end. Throws `SystemError` where the program can be saved no more.
  func commit(_ result: BlockResult) throws {
    shared.pointee.phase = CT_COMMITTING.rawValue
    tracer.strike(.tracerCommitting)
    let state = result.state
    let breakNow = UInt64(bitPattern: try tracee.call(tid, SystemCallPolicy.brk, 0))
    if breakNow != state.breakAfter {
      guard
        UInt64(bitPattern: try tracee.call(tid, SystemCallPolicy.brk, state.breakAfter)) == state.breakAfter
      else { throw SystemError("set its break", ENOMEM) }
    }
    // With other threads at home, the block has changed no mapping, and they may have.
    if !result.withBefore { try conform(to: state) }
    try write(result)
    try setFiles(state.files)
    try setHandlers(state.handlers)
    if scratch != 0 { try unmap(scratch..<scratch + 4096) }
    scratch = 0
    var registers = user_regs_struct()
    withUnsafeMutableBytes(of: &registers) { $0.copyBytes(from: state.registers) }
    registers.orig_rax = ~0
    try tracee.setRegisters(tid, registers)
    guard state.xstate.isEmpty || ct_set_xstate(tid, state.xstate, state.xstate.count) >= 0 else {
      throw SystemError("set its vector registers", EINVAL)
    }
    try tracee.setMask(tid, state.mask)
    tracer.strike(.tracerCommitted)
  }

  private func conform(to state: BlockState) throws {
    guard let now = tracee.mappings() else { throw ProgramEnded() }
    let difference = MapDifference(
      from: now, to: state.mappings, breakBefore: state.breakAfter, breakAfter: state.breakAfter)
    for range in difference.removed {
      try unmap(range)
      if range.contains(scratch) { scratch = 0 }
    }
    for mapping in difference.replaced + difference.added { try map(mapping, replacing: true) }
    for mapping in difference.protected {
      let result = try tracee.call(
        tid, 10, mapping.start, mapping.end - mapping.start, UInt64(mapping.protection))
      guard result == 0 else { throw SystemError("protect its memory", Int32(-result)) }
    }
  }

  private func write(_ result: BlockResult) throws {
    var records = 0
    for body in result.pages {
      var at = 0
      while at < body.count,
        let (record, next) = PageRecords.next(body, at: at, withBefore: result.withBefore)
      {
        at = next
        records += 1
        if records == 2 { tracer.strike(.tracerWriting) }
        var isWritten = true
        switch record {
        case .whole(let address, let count, let offset):
          isWritten = tracee.write(
            address, UnsafeRawBufferPointer(rebasing: body[offset..<offset + count * PageRecords.pageSize]))
        case .dropped(let address, let count):
          isWritten = try tracee.call(tid, 28, address, UInt64(count * PageRecords.pageSize), 4) == 0
        case .words(let address, let runs, var offset):
          for _ in 0..<runs {
            guard let (run, following) = PageRecords.run(body, at: offset, withBefore: result.withBefore)
            else {
              break
            }
            offset = following
            isWritten =
              isWritten
              && tracee.write(
                address + UInt64(run.first * 8),
                UnsafeRawBufferPointer(rebasing: body[run.offset..<run.offset + run.count * 8]))
          }
        }
        guard isWritten else { throw SystemError("write its memory", EFAULT) }
      }
    }
  }
}
