import Augmenter
import CTrace
import Glibc

/// A clone that has run a call and waits for the next one. Its copy of the program is the program as it was when
/// that call's effect had been merged, and so is `base` here.
struct KeptClone {
  let name: String
  let base: Tracee
  let mappings: [Mapping]
  let programBreak: UInt64
  let files: MappedFiles

  /// Ends the copy; the clone is its ticket's.
  func end() { base.endCopy() }
}

/// The files that the program had mapped when it was forked. Of their pages the clone has what they were then.
struct MappedFiles {
  private struct Identity: Hashable {
    var device: UInt64
    var inode: UInt64
    var size: Int64
    var changed: [Int]
  }

  private let identities: Set<Identity>

  /// Nil: a file is not where it was mapped from.
  init?(of mappings: [Mapping]) {
    var identities: Set<Identity> = []
    for path in Set(mappings.filter { $0.kind == .file }.map(\.path)) {
      var status = stat()
      guard stat(path, &status) == 0 else { return nil }
      identities.insert(
        Identity(
          device: UInt64(status.st_dev), inode: UInt64(status.st_ino), size: Int64(status.st_size),
          changed: [
            status.st_mtim.tv_sec, status.st_mtim.tv_nsec, status.st_ctim.tv_sec, status.st_ctim.tv_nsec,
          ]))
    }
    self.identities = identities
  }

  /// Whether the program maps none now that it did not map then, and none has changed.
  func hold(for mappings: [Mapping]) -> Bool {
    MappedFiles(of: mappings).map { $0.identities.isSubset(of: identities) } ?? false
  }
}

extension HomeSide {
  /// Has the call run by the clone that is kept: sends it what the program has changed since the last call. Its
  /// result comes by what is returned. Nil: this needs a new clone.
  func send(changesTo kept: KeptClone) throws -> Conversation? {
    let collected: Int?
    // What can not be read is not sent; the program has lost nothing.
    do { collected = try collectChanges(since: kept) } catch is SystemError { collected = nil }
    guard let count = collected else { return nil }
    tracer.strike(.tracerSending)
    let script = "cat >\"$1\" && exec cat \"$2\""
    let stream = try conversation(
      with: kept.name, ["sh", "-c", script, "sh", tracer.streamPath.changes, tracer.streamPath.result])
    let faults = tracer.options.faults
    if faults.strikes(.changesDamage, call: call) {
      tracer.journal.alter(Int(faults.chance(call: call, below: UInt64(count))))
    }
    let cut =
      faults.strikes(.changesCut, call: call) ? Int(faults.chance(call: call, below: UInt64(count))) : Int.max
    var credit = Int(SF_AGENT_RUN_WINDOW)
    var sent = 0
    while sent < count {
      if credit == 0 { credit = try moreCredit(stream) }
      let piece = min(credit, count - sent, Self.pieceBytes)
      guard
        stream.send(
          Conversation.request(SF_AGENT_RUN_INPUT), Array(tracer.journal.bytes(count)[sent..<sent + piece]))
      else { throw GivenUp(reason: "the agent is not there") }
      sent += piece
      credit -= piece
      if sent >= cut { throw GivenUp(reason: "the link is cut") }
    }
    shared.pointee.counters.bytes_out += UInt64(count)
    return stream
  }

  private static let pieceBytes = 32 << 10

  private func moreCredit(_ stream: Conversation) throws -> Int {
    while true {
      _ = try wait(for: stream.descriptor)
      guard let answer = stream.receive() else { throw GivenUp(reason: "the agent is not there") }
      switch Int(answer.type) {
      case SF_AGENT_RUN_CREDIT: return Int(answer.count)
      case SF_AGENT_RUN_OUTPUT: continue
      default: throw GivenUp(reason: "the kept clone has ended")
      }
    }
  }

  /// Into the journal: how many bytes. Nil: the clone can not be brought into step.
  private func collectChanges(since kept: KeptClone) throws -> Int? {
    let tracee = tracer.tracee
    let tid = shared.pointee.tid
    let begin = monotonicMicroseconds()
    guard let mappings = tracee.mappings() else { throw ProgramEnded() }
    guard kept.files.hold(for: mappings) else { return nil }
    try tracee.setMask(tid, ~0)
    var state = BlockState()
    withUnsafeBytes(of: shared.pointee.entry) { state.registers = Array($0) }
    try state.takeVectors(of: tid)
    state.mask = shared.pointee.mask
    state.breakBefore = kept.programBreak
    state.breakAfter = UInt64(bitPattern: try tracee.call(tid, SystemCallPolicy.brk, 0))
    state.mappings = mappings
    var (count, fits) = (0, true)
    let writer = ResultStream.Writer(
      call: call, entry: shared.pointee.entry.rip, withBefore: false, key: tracer.changesKey
    ) { bytes in
      fits = fits && bytes.withUnsafeBytes { self.tracer.journal.append($0, at: count) }
      count += bytes.count
    }
    // The copy was made without them.
    tracer.breakpoints.lift(from: tracee)
    defer { tracer.breakpoints.place(in: tracee) }
    try Collector(
      ProgramChange(program: tracee, base: kept.base, mappingsBefore: kept.mappings, state: state),
      withBefore: false, writer: writer
    ).collect(since: begin)
    return fits ? count : nil
  }

  /// After the merge, while it could still be done again: the program and its clone are alike now. Nil: there is no
  /// memory for a copy.
  func keep(_ name: String, _ files: MappedFiles) throws -> KeptClone? {
    let tracee = tracer.tracee
    let tid = shared.pointee.tid
    let (registers, mask) = (try tracee.registers(tid), try tracee.mask(tid))
    try tracee.setMask(tid, ~0)
    guard let mappings = tracee.mappings() else { throw ProgramEnded() }
    let programBreak = UInt64(bitPattern: try tracee.call(tid, SystemCallPolicy.brk, 0))
    tracer.breakpoints.lift(from: tracee)
    let base = try tracee.copy(tid)
    tracer.breakpoints.place(in: tracee)
    try tracee.setRegisters(tid, registers)
    try tracee.setMask(tid, mask)
    return base.map {
      KeptClone(name: name, base: $0, mappings: mappings, programBreak: programBreak, files: files)
    }
  }
}
