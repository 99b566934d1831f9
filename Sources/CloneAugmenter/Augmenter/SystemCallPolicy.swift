/// Which system calls a block may make away from home (x86-64).
package enum SystemCallPolicy {
  /// What is to be done about one that the filter has stopped at.
  package enum Question: Equatable, Sendable {
    /// It changes or asks what only home has: a write, a process, a wait, randomness, a name.
    case home
    /// Reads from, or asks about, the descriptor in the first argument: if that is a plain file on a disk.
    case plainFile
    /// The same, and the file offset is part of the result.
    case closesPlainFile
    /// Opens for reading, or asks about, the path that is so many arguments in; -1: no directory argument.
    case path(directory: Int, path: Int, opens: Bool)
    /// rt_sigaction: what it sets goes home.
    case signalAction
    /// mmap of a file.
    case mapFile
  }

  package static let brk: UInt64 = 12

  /// Run away without a stop: the process's own memory, and who it is.
  static let free: [UInt32] = [
    14, 15,  // rt_sigprocmask, rt_sigreturn
    24, 39, 186,  // sched_yield, getpid, gettid
    96, 228, 201, 229, 100,  // gettimeofday, clock_gettime, time, clock_getres, times
    102, 104, 107, 108, 110, 111,  // getuid, getgid, geteuid, getegid, getppid, getpgrp
    97, 204,  // getrlimit, sched_getaffinity
  ]
  /// The same, where the mappings are the block's alone.
  static let freeAlone: [UInt32] = [10, 11, 12, 25]  // mprotect, munmap, brk, mremap

  /// Run away without a stop where the clone is kept: what neither asks nor changes anything but the process's own memory, its
  /// signal mask and the clock.
  static let freeKept: [UInt32] = [14, 15, 24, 39, 186, 96, 228, 201, 229]

  package static func question(_ number: UInt64, alone: Bool) -> Question {
    switch number {
    case 0, 17, 19, 8, 5, 295: .plainFile  // read, pread64, readv, lseek, fstat, preadv
    case 3: .closesPlainFile
    case 2: .path(directory: -1, path: 0, opens: true)
    case 257: .path(directory: 0, path: 1, opens: true)
    case 4, 6, 21: .path(directory: -1, path: 0, opens: false)  // stat, lstat, access
    case 262, 269, 439, 332: .path(directory: 0, path: 1, opens: false)  // newfstatat, faccessat(2), statx
    case 13: .signalAction
    case 9: alone ? .mapFile : .home
    default: .home
    }
  }

  /// A classic BPF program (seccomp(2)): 8 bytes an instruction. It allows what is free and traces the rest.
  /// `alone`: the process has one thread.
  package static func filter(alone: Bool) -> [UInt8] {
    filter(allowing: free + (alone ? freeAlone : []), alone: alone)
  }

  /// The same for calls after a clone's first: with the one before it, the stricter of the two decides.
  package static func filterKept() -> [UInt8] { filter(allowing: freeKept + freeAlone, alone: true) }

  private static func filter(allowing numbers: [UInt32], alone: Bool) -> [UInt8] {
    var program = Program()
    program.load(4)
    program.traceUnlessEqual(0xC000_003E)  // AUDIT_ARCH_X86_64
    program.load(0)
    for number in numbers { program.allowIfEqual(number) }
    if alone {
      // madvise DONTNEED and FREE; mmap of anonymous private memory, not locked, huge or growing.
      program.allowIf(28, argument: 2, mask: ~0, among: [4, 8])
      program.allowIf(9, argument: 3, mask: 0x4_2123, among: [0x22])
      // futex: nobody waits who could be woken.
      program.allowIf(202, argument: 1, mask: 0x7f, among: [1])
    }
    program.trace()
    return program.bytes
  }

  private struct Program {
    var bytes: [UInt8] = []

    mutating func emit(_ code: UInt16, _ jumpTrue: UInt8, _ jumpFalse: UInt8, _ value: UInt32) {
      bytes += [UInt8(code & 255), UInt8(code >> 8), jumpTrue, jumpFalse]
      for shift in [0, 8, 16, 24] { bytes.append(UInt8(truncatingIfNeeded: value >> UInt32(shift))) }
    }

    mutating func load(_ offset: UInt32) { emit(0x20, 0, 0, offset) }
    mutating func allow() { emit(0x06, 0, 0, 0x7fff_0000) }
    mutating func trace() { emit(0x06, 0, 0, 0x7ff0_0000) }

    mutating func traceUnlessEqual(_ value: UInt32) {
      emit(0x15, 1, 0, value)
      trace()
    }

    mutating func allowIfEqual(_ value: UInt32) {
      emit(0x15, 0, 1, value)
      allow()
    }

    /// Reloads the number behind itself, for what follows.
    mutating func allowIf(_ number: UInt32, argument: UInt32, mask: UInt32, among values: [UInt32]) {
      emit(0x15, 0, UInt8(3 + 2 * values.count), number)
      load(16 + 8 * argument)
      emit(0x54, 0, 0, mask)
      for value in values { allowIfEqual(value) }
      trace()
    }
  }
}
