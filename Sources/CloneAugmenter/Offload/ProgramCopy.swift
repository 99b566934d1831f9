import CTrace
import Glibc

/// Copies of the program that never run: what the program was.
extension Tracee {
  /// CLONE_PARENT
  private static let sameParent: UInt64 = 0x8000

  /// A process with the program's memory as it is, whose pages are shared until one of the two is written; without files, and
  /// a child of the program's parent, so that the program can not wait for it. Nil: there is no memory for it.
  ///
  /// The thread's registers are as before, its signals must be blocked. If the tracer dies, the copy faults and ends, for
  /// it has no stack; the program stands in its group stop.
  func copy(_ tid: Int32) throws(ProgramEnded) -> Tracee? {
    let registers = try registers(tid)
    var withoutStack = registers
    withoutStack.rsp = 0
    try setRegisters(tid, withoutStack)
    let made = try call(tid, 56, Self.sameParent, 0, 0, 0, 0)
    let pid = child
    try setRegisters(tid, registers)
    var event = ct_event()
    guard made > 0, pid > 0, ct_wait(pid, 0, &event) == 1, event.stop != Int32(CT_EXITED.rawValue) else {
      return nil
    }
    let copy = Tracee(pid: pid)
    guard (try? copy.open()) != nil, let closed = try? copy.call(pid, 436, 0, UInt64(UInt32.max), 0),
      closed == 0
    else {
      copy.endCopy()
      return nil
    }
    return copy
  }

  func endCopy() {
    kill(pid, SIGKILL)
    var event = ct_event()
    while ct_wait(pid, 0, &event) == 1, event.stop != Int32(CT_EXITED.rawValue) {}
  }
}
