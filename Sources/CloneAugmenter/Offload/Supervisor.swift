import Augmenter
import CTrace
import Glibc

/// Starts the program and a tracer for it, and another tracer in place of one that died.
///
/// ```
/// supervisor ─┬─ program   stopped (SIGSTOP) before it was seized, and in a group stop ever since: its tracer lets
///             │            it run nevertheless, and where the tracer dies, every thread stops by itself
///             └─ tracer    what it must leave to its successor is in `ct_shared` and the journal
/// ```
struct Supervisor {
  /// So many deaths without a call between them mean that offloading is to be left alone.
  private static let deathLimit = 4

  let options: Options
  let shared: UnsafeMutablePointer<ct_shared>
  let journal: Journal
  private let streamPath: StreamPath

  private let decider: Decider

  init(_ options: Options, _ decider: Decider) throws(SystemError) {
    self.options = options
    self.decider = decider
    let memory = mmap(
      nil, MemoryLayout<ct_shared>.size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)
    guard let memory, memory != MAP_FAILED else { throw SystemError("shared memory") }
    shared = memory.bindMemory(to: ct_shared.self, capacity: 1)
    shared.initialize(to: ct_shared())
    journal = try Journal()
    mkdir("/run", 0o755)
    streamPath = StreamPath(process: getpid())
    try streamPath.make()
  }

  /// The program's exit status, 128 + the signal that ended it.
  func run() throws(SystemError) -> Int32 {
    defer { streamPath.remove() }
    let program = start()
    guard program > 0 else { throw SystemError("fork", -program) }
    Self.leaveSignalsToProgram()
    var status: Int32 = 0
    guard waitpid(program, &status, WUNTRACED) == program else { throw SystemError("start the program") }
    shared.pointee.program = program
    var tracer = try startTracer(isSuccessor: false)
    var (deaths, calls) = (0, UInt64(0))
    var programStatus: Int32?
    while programStatus == nil || tracer > 0 {
      var event = ct_event()
      guard ct_wait(-1, 0, &event) == 1 else { break }
      guard event.stop == Int32(CT_EXITED.rawValue) else { continue }
      if event.tid == program { programStatus = event.value }
      guard event.tid == tracer else { continue }
      tracer = 0
      if shared.pointee.is_away != 0 { streamPath.hangUp() }
      if programStatus != nil || shared.pointee.ended != 0 { continue }
      deaths = shared.pointee.counters.calls == calls ? deaths + 1 : 0
      calls = shared.pointee.counters.calls
      shared.pointee.counters.takeovers += 1
      if options.isVerbose { say("the tracer ended with status \(event.value); another takes its place") }
      tracer = try startTracer(isSuccessor: true, letGo: deaths >= Self.deathLimit)
    }
    return programStatus ?? 1
  }

  /// The program is in the same process group and gets what a terminal or an operator sends to it.
  static func leaveSignalsToProgram() {
    for number in [SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGTSTP, SIGUSR1, SIGUSR2, SIGPIPE] {
      signal(number, SIG_IGN)
    }
  }

  private func start() -> Int32 {
    var arguments: [UnsafeMutablePointer<CChar>?] = options.program.map { strdup($0) } + [nil]
    defer { arguments.forEach { free($0) } }
    return ct_spawn_stopped(&arguments)
  }

  private func startTracer(isSuccessor: Bool, letGo: Bool = false) throws(SystemError) -> Int32 {
    let pid = ct_fork()
    guard pid >= 0 else { throw SystemError("fork", -pid) }
    if pid > 0 { return pid }
    let tracer = Tracer(options, shared, journal, decider, streamPath: streamPath)
    do {
      if isSuccessor { try tracer.takeOver(letGo: letGo) } else { try tracer.begin() }
    } catch is ProgramEnded {
      tracer.end()
    } catch {
      say("cannot go on with \(options.program[0]): \(error). It is ended.")
      kill(shared.pointee.program, SIGKILL)
      tracer.end()
    }
    _exit(0)
  }
}
