import Augmenter
import CTrace
import Glibc

/// A call that runs at home, on its way: its end is at a breakpoint.
struct HomeCall {
  var tid: Int32
  /// The stack pointer at the entry.
  var stack: UInt64
  var begin: UInt64
  /// Between `cc_start` and `cc_stop`, whatever the stack.
  var isMarked: Bool
}

/// How long calls take here.
extension Tracer {
  /// Whether the call is one that a call at home makes. One that begins above it on the stack is not: the other has
  /// been left without a return, by an exception or longjmp(3).
  func isWithinHomeCall(_ tid: Int32, _ entry: user_regs_struct) -> Bool {
    guard let call = homeCall, call.tid == tid else { return false }
    if call.isMarked || entry.rsp < call.stack { return true }
    endHomeCall()
    return false
  }

  func measureHome(_ tid: Int32, _ entry: user_regs_struct, _ breakpoint: ct_breakpoint) {
    guard homeCall == nil else { return }
    let isMarked = breakpoint.kind == UInt8(CT_CC_START.rawValue)
    let end = isMarked ? breakpoints.first(CT_CC_STOP)?.address : tracee.word(entry.rsp)
    guard let end, breakpoints.addReturn(end) else { return }
    homeCall = HomeCall(tid: tid, stack: entry.rsp, begin: monotonicMicroseconds(), isMarked: isMarked)
  }

  /// A thread stands where a call at home is to end; afterwards the breakpoint is out, if it was that call's.
  func homeCallReturns(_ tid: Int32, _ registers: user_regs_struct) {
    guard let call = homeCall else { return breakpoints.remove(CT_RETURN) }
    guard call.tid == tid, call.isMarked || registers.rsp == call.stack &+ 8 else { return }
    decider.learnHome(microseconds: monotonicMicroseconds() - call.begin)
    endHomeCall()
    guard decider.leavesAlone else { return }
    breakpoints.remove(CT_BLOCK)
    breakpoints.remove(CT_CC_START)
  }

  private func endHomeCall() {
    breakpoints.remove(CT_RETURN)
    homeCall = nil
  }
}
