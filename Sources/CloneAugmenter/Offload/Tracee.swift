import Augmenter
import CTrace
import Glibc

/// The program has ended, in whatever the tracer was about to do with it.
struct ProgramEnded: Error {}

/// The program as ptrace(2) sees it: memory, registers, and system calls made in its name.
final class Tracee {
  let pid: Int32
  private var memory: Int32 = -1
  /// Where in the program two bytes are a `syscall` instruction: in the vdso, which all programs have.
  private var systemCallAddress: UInt64 = 0

  init(pid: Int32) { self.pid = pid }

  deinit { if memory >= 0 { close(memory) } }

  /// After the program has another memory (execve), or for the first time.
  func open() throws(SystemError) {
    if memory >= 0 { close(memory) }
    memory = Glibc.open("/proc/\(pid)/mem", O_RDWR | O_CLOEXEC)
    guard memory >= 0 else { throw SystemError("open the program's memory") }
    systemCallAddress = 0
  }

  // MARK: memory

  func read(_ address: UInt64, into buffer: UnsafeMutableRawBufferPointer) -> Bool {
    var done = 0
    while done < buffer.count {
      let count = pread(memory, buffer.baseAddress! + done, buffer.count - done, off_t(address) + off_t(done))
      if count < 0 && errno == EINTR { continue }
      guard count > 0 else { return false }
      done += count
    }
    return true
  }

  func read(_ address: UInt64, _ count: Int) -> [UInt8]? {
    var bytes = [UInt8](repeating: 0, count: count)
    return bytes.withUnsafeMutableBytes { read(address, into: $0) } ? bytes : nil
  }

  func word(_ address: UInt64) -> UInt64? {
    read(address, 8).map { bytes in bytes.withUnsafeBytes { $0.loadUnaligned(as: UInt64.self) } }
  }

  /// Text up to its NUL; nil: not there, or longer than `limit`.
  func text(_ address: UInt64, limit: Int = 4096) -> [UInt8]? {
    var bytes: [UInt8] = []
    var at = address
    while bytes.count < limit {
      guard let piece = read(at, Int(min(4096 - at % 4096, 256))) else { return nil }
      if let end = piece.firstIndex(of: 0) { return bytes + piece[..<end] }
      bytes += piece
      at += UInt64(piece.count)
    }
    return nil
  }

  /// Whatever the protection: private pages are copied before they are written.
  func write(_ address: UInt64, _ bytes: UnsafeRawBufferPointer) -> Bool {
    var done = 0
    while done < bytes.count {
      let count = pwrite(memory, bytes.baseAddress! + done, bytes.count - done, off_t(address) + off_t(done))
      if count < 0 && errno == EINTR { continue }
      guard count > 0 else { return false }
      done += count
    }
    return true
  }

  @discardableResult
  func write(_ address: UInt64, _ bytes: [UInt8]) -> Bool { bytes.withUnsafeBytes { write(address, $0) } }

  func mappings() -> [Mapping]? { contents(of: "/proc/\(pid)/maps").flatMap { MemoryMap.parse($0) } }

  func threads() -> [Int32] { names(in: "/proc/\(pid)/task").compactMap { Int32($0) }.sorted() }

  // MARK: registers

  func registers(_ tid: Int32) throws(ProgramEnded) -> user_regs_struct {
    var registers = user_regs_struct()
    guard ct_get_registers(tid, &registers) == 0 else { throw ProgramEnded() }
    return registers
  }

  func setRegisters(_ tid: Int32, _ registers: user_regs_struct) throws(ProgramEnded) {
    var registers = registers
    guard ct_set_registers(tid, &registers) == 0 else { throw ProgramEnded() }
  }

  func mask(_ tid: Int32) throws(ProgramEnded) -> UInt64 {
    var mask: UInt64 = 0
    guard ct_get_mask(tid, &mask) == 0 else { throw ProgramEnded() }
    return mask
  }

  func setMask(_ tid: Int32, _ mask: UInt64) throws(ProgramEnded) {
    guard ct_set_mask(tid, mask) == 0 else { throw ProgramEnded() }
  }

  // MARK: system calls

  /// A new process that a call has made, stopped.
  private(set) var child: Int32 = 0

  /// Makes a system call in the name of a stopped thread, whose signals are blocked: its answer, negative errno for an
  /// error. The thread's registers are left as the call leaves them.
  func call(_ tid: Int32, _ number: UInt64, _ arguments: UInt64...) throws(ProgramEnded) -> Int64 {
    if systemCallAddress == 0 { systemCallAddress = try findSystemCall() }
    var registers = try registers(tid)
    let all = arguments + [UInt64](repeating: 0, count: 6 - arguments.count)
    registers.rip = systemCallAddress
    registers.rax = number
    registers.orig_rax = ~0
    registers.rdi = all[0]
    registers.rsi = all[1]
    registers.rdx = all[2]
    registers.r10 = all[3]
    registers.r8 = all[4]
    registers.r9 = all[5]
    try setRegisters(tid, registers)
    child = 0
    for _ in 0..<2 { try untilSystemCall(tid) }
    return Int64(bitPattern: try self.registers(tid).rax)
  }

  private func untilSystemCall(_ tid: Int32) throws(ProgramEnded) {
    while true {
      guard ct_to_syscall(tid) == 0 else { throw ProgramEnded() }
      var event = ct_event()
      guard ct_wait(tid, 0, &event) == 1, event.stop != Int32(CT_EXITED.rawValue) else {
        throw ProgramEnded()
      }
      switch UInt32(event.stop) {
      case CT_SYSCALL.rawValue: return
      case CT_CLONED.rawValue, CT_FORKED.rawValue: child = Int32(event.message)
      default: break  // a stop that is in effect already; the filter's, for a call of ours
      }
    }
  }

  private func findSystemCall() throws(ProgramEnded) -> UInt64 {
    guard let map = contents(of: "/proc/\(pid)/maps") else { throw ProgramEnded() }
    for line in map.split(separator: UInt8(ascii: "\n")) {
      guard line.suffix(6).elementsEqual("[vdso]".utf8) else { continue }
      var scanner = Scanner(Array(line))
      guard let start = scanner.number(16), scanner.skip(UInt8(ascii: "-")), let end = scanner.number(16),
        let code = read(start, Int(end - start))
      else { break }
      for index in 0..<code.count - 1 where code[index] == 0x0f && code[index + 1] == 0x05 {
        return start + UInt64(index)
      }
    }
    throw ProgramEnded()
  }

  /// Stops a thread that runs (`isStopped` false), or takes it out of a stop that has been told: into a stop in which
  /// its tracer's death leaves it standing. Signals that come first stay with it.
  func park(_ tid: Int32, isStopped: Bool) throws(ProgramEnded) {
    _ = ct_interrupt(tid)
    var event = ct_event()
    event.stop = Int32(CT_STOPPED.rawValue)
    if !isStopped {
      guard ct_wait(tid, 0, &event) == 1 else { throw ProgramEnded() }
    }
    while isStopped || event.stop != Int32(CT_STOPPED.rawValue) {
      guard event.stop != Int32(CT_EXITED.rawValue),
        ct_continue(tid, event.stop == Int32(CT_SIGNAL.rawValue) ? event.value : 0) == 0,
        ct_wait(tid, 0, &event) == 1
      else { throw ProgramEnded() }
      if event.stop == Int32(CT_STOPPED.rawValue) { return }
    }
  }
}
