import Augmenter
import CTrace
import Glibc

/// The breakpoints in the program, kept where a successor finds them.
struct Breakpoints {
  private static let trap: [UInt8] = [0xcc]

  let shared: UnsafeMutablePointer<ct_shared>
  let tracee: Tracee

  private var all: UnsafeMutableBufferPointer<ct_breakpoint> {
    UnsafeMutableBufferPointer(start: ct_breakpoints(shared), count: Int(shared.pointee.breakpoint_count))
  }

  func forgetAll() { shared.pointee.breakpoint_count = 0 }

  func add(_ address: UInt64, _ kind: ct_breakpoint_kind, isSet: Bool = true) {
    let count = Int(shared.pointee.breakpoint_count)
    guard count < Int(CT_BREAKPOINT_LIMIT), find(address) == nil,
      let original = tracee.read(address, 1)
    else { return }
    var breakpoint = ct_breakpoint()
    breakpoint.address = address
    breakpoint.original = original[0]
    breakpoint.kind = UInt8(kind.rawValue)
    breakpoint.is_set = isSet ? 1 : 0
    ct_breakpoints(shared)[count] = breakpoint
    shared.pointee.breakpoint_count += 1
    if isSet { tracee.write(address, Self.trap) }
  }

  /// Where a call at home ends. It takes the place of the last one in the table.
  func addReturn(_ address: UInt64) -> Bool {
    guard find(address) == nil, let original = tracee.read(address, 1) else { return false }
    guard let index = all.firstIndex(where: { $0.kind == UInt8(CT_RETURN.rawValue) }) else {
      add(address, CT_RETURN)
      return find(address) != nil
    }
    all[index].address = address
    all[index].original = original[0]
    all[index].is_set = 1
    return tracee.write(address, Self.trap)
  }

  func remove(_ kind: ct_breakpoint_kind) {
    for index in all.indices where all[index].kind == UInt8(kind.rawValue) && all[index].is_set != 0 {
      tracee.write(all[index].address, [all[index].original])
      all[index].is_set = 0
    }
  }

  func find(_ address: UInt64) -> ct_breakpoint? { all.first { $0.address == address && $0.is_set != 0 } }

  func first(_ kind: ct_breakpoint_kind) -> ct_breakpoint? { all.first { $0.kind == UInt8(kind.rawValue) } }

  /// Takes them out of the memory of `process`, or puts them in; the table stays.
  func lift(from process: Tracee) {
    for breakpoint in all where breakpoint.is_set != 0 {
      process.write(breakpoint.address, [breakpoint.original])
    }
  }

  func place(in process: Tracee) {
    for breakpoint in all where breakpoint.is_set != 0 { process.write(breakpoint.address, Self.trap) }
  }

  /// What the instruction under a breakpoint does, where it is one of those that functions begin with: the thread is
  /// then past it, and nothing had to be taken out meanwhile.
  func emulate(_ breakpoint: ct_breakpoint, _ registers: inout user_regs_struct) -> Bool {
    guard var code = tracee.read(breakpoint.address, 4) else { return false }
    code[0] = breakpoint.original
    if code == [0xf3, 0x0f, 0x1e, 0xfa] {  // endbr64
      registers.rip += 4
      return true
    }
    if code[0] == 0xc3, let back = tracee.word(registers.rsp) {  // ret
      registers.rip = back
      registers.rsp &+= 8
      return true
    }
    let isExtended = code[0] == 0x41
    let operation = isExtended ? code[1] : code[0]
    guard 0x50...0x57 ~= operation else { return false }
    let r = registers
    let low = [r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi]
    let high = [r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15]
    let value = (isExtended ? high : low)[Int(operation & 7)]
    let written = withUnsafeBytes(of: value) { tracee.write(registers.rsp &- 8, $0) }
    guard written else { return false }
    registers.rsp &-= 8
    registers.rip += isExtended ? 2 : 1
    return true
  }
}
