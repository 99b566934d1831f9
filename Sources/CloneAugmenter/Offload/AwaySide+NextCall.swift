import Augmenter
import CTrace
import Glibc

/// A clone that is kept: the calls after its first one.
extension AwaySide {
  /// Waits until home has another call for this clone, and brings the program into the state that it has there.
  ///
  /// What the kernel has of the program beside its memory (files, names, limits) may be another at home by now: from
  /// here on the block has its memory and the clock, and comes home for everything else.
  func awaitNextCall() throws {
    let count = try receiveChanges()
    let bytes = tracer.journal.bytes(count)
    guard count >= 32 else { throw Failed(reason: "the changes are cut short") }
    let call = bytes.loadUnaligned(fromByteOffset: 16, as: UInt64.self)
    guard call > self.call else { throw Failed(reason: "a call of before") }
    let next = try BlockResult(
      bytes, call: call, entry: bytes.loadUnaligned(fromByteOffset: 24, as: UInt64.self), withBefore: false,
      key: tracer.changesKey)
    tracer.shared.pointee.call = call
    tracer.shared.pointee.mask = next.state.mask
    strike(.cloneApplying)
    if !isKept {
      isKept = true
      try installFilter(SystemCallPolicy.filterKept())
    }
    base.endCopy()
    tracer.breakpoints.lift(from: tracee)
    let merge = Merge(tracer, tid)
    try merge.prepare(next)
    try merge.commit(next)
    tracer.journal.clear()
    entry = try tracee.registers(tid)
    guard let reached = tracer.breakpoints.find(entry.rip) else {
      throw Failed(reason: "no entry of the block")
    }
    breakpoint = reached
    try tracee.setMask(tid, ~0)
    try beginCall()
  }

  /// Into the journal, until home has closed the stream: how many bytes.
  private func receiveChanges() throws -> Int {
    let stream = open(tracer.streamPath.changes, O_RDONLY | O_CLOEXEC)
    guard stream >= 0 else { throw SystemError("open the changes") }
    defer { close(stream) }
    var piece = [UInt8](repeating: 0, count: 64 << 10)
    var total = 0
    while true {
      let count = read(stream, &piece, piece.count)
      if count < 0 && errno == EINTR { continue }
      guard count >= 0 else { throw SystemError("read the changes") }
      if count == 0 { return total }
      guard piece[..<count].withUnsafeBytes({ tracer.journal.append($0, at: total) }) else {
        throw Failed(reason: "the changes do not fit")
      }
      total += count
    }
  }
}
