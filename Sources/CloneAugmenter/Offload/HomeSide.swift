import Augmenter
import CTrace
import Glibc

/// A call that goes to a clone, seen from home: the fork, the wait for its result, and the merge. Until the merge has
/// begun to write, the thread stands intact at the block's entry.
final class HomeSide {
  /// So often it is looked whether a signal waits for the sleeping program, milliseconds.
  private static let lookMilliseconds: Int32 = 1000
  /// Signals that can wait until the call is back: timers, children, stops.
  private static let patientSignals: [Int32] = [
    SIGALRM, SIGVTALRM, SIGPROF, SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH,
  ]

  struct GivenUp: Error {
    var reason: String
    var isLate = false
  }

  let tracer: Tracer
  private let breakpoint: ct_breakpoint
  private let begin = monotonicMicroseconds()
  private let deadline: UInt64?
  private let childEvents: Int32
  private let program: Int32
  var shared: UnsafeMutablePointer<ct_shared> { tracer.shared }
  var call: UInt64 { shared.pointee.call }
  private var otherThreads: [Int32] = []

  init(_ tracer: Tracer, limitMicroseconds: UInt64?, _ breakpoint: ct_breakpoint) {
    self.tracer = tracer
    self.breakpoint = breakpoint
    let faultAtOnce = tracer.options.faults.strikes(.deadline, call: tracer.shared.pointee.call)
    deadline = faultAtOnce ? begin : limitMicroseconds.map { monotonicMicroseconds() + $0 }
    var signals = sigset_t()
    sigemptyset(&signals)
    sigaddset(&signals, SIGCHLD)
    sigprocmask(SIG_BLOCK, &signals, nil)
    childEvents = signalfd(-1, &signals, Int32(SFD_NONBLOCK) | Int32(SFD_CLOEXEC))
    program = ct_pidfd_open(tracer.tracee.pid)
  }

  deinit {
    close(childEvents)
    close(program)
  }

  func run() throws -> CallMeasure {
    var measure = CallMeasure(outcome: .dropped)
    do {
      let clone = try reach(&measure)
      measure.forwardMicroseconds = monotonicMicroseconds() - begin
      let count = try receive(from: clone.stream)
      measure.bytesHome = UInt64(count)
      let received = monotonicMicroseconds()
      if tracer.options.faults.strikes(.damage, call: call) {
        tracer.journal.alter(Int(tracer.options.faults.chance(call: call, below: UInt64(count))))
      }
      let result = try BlockResult(
        tracer.journal.bytes(count), call: call, entry: shared.pointee.entry.rip,
        withBefore: tracer.options.merge == .words, key: tracer.sealKey)
      shared.pointee.result_bytes = UInt64(count)
      let isKept = tracer.decider.keeps(cloneOf: result.state)
      if !isKept { tracer.releaseClone() }
      try pauseOthers()
      let merge = Merge(tracer, shared.pointee.tid)
      try merge.prepare(result)
      try merge.commit(result)
      measure.outcome = result.state.end == .returned ? .merged : .cameHomeEarly
      measure.runMicroseconds = result.state.runMicroseconds
      if isKept { tracer.kept = try clone.files.flatMap { try keep(clone.name, $0) } }
      let end = monotonicMicroseconds()
      measure.mergeMicroseconds =
        max(end - begin, measure.forwardMicroseconds + measure.runMicroseconds)
        - measure.forwardMicroseconds - measure.runMicroseconds
      shared.pointee.counters.collect_us += result.state.collectMicroseconds
      measure.applyMicroseconds = end - received
      shared.pointee.counters.apply_us += measure.applyMicroseconds
      shared.pointee.counters.receive_us +=
        max(received - begin, measure.forwardMicroseconds + measure.runMicroseconds)
        - measure.forwardMicroseconds - measure.runMicroseconds
    } catch let error as GivenUp {
      tell(error.reason)
      if error.isLate { measure.outcome = .gaveUp }
    } catch let error as ResultError {
      tell(error.description)
    } catch let error as Merge.Refused {
      tell(error.reason)
    } catch is Merge.Conflict {
      tell("a word was changed at home and away")
      measure.outcome = .conflict
    }
    if tracer.kept == nil { tracer.releaseClone() }
    tracer.journal.clear()
    resumeOthers()
    measure.totalMicroseconds = monotonicMicroseconds() - begin
    return measure
  }

  private func tell(_ reason: String) {
    if tracer.options.isVerbose { say("call \(call) runs here: \(reason)") }
  }

  // MARK: waiting

  /// Until the descriptor has something. Throws `GivenUp` when the call's time is over or a signal for the program
  /// waits, `ProgramEnded` when it has died in its sleep.
  func wait(for descriptor: Int32) throws -> Bool {
    while true {
      var timeout = Self.lookMilliseconds
      if let deadline {
        let now = monotonicMicroseconds()
        guard now < deadline else { throw GivenUp(reason: "its time is over", isLate: true) }
        timeout = min(timeout, Int32((deadline - now) / 1000) + 1)
      }
      var waiting = [descriptor, program, childEvents, tracer.tickets.descriptor].map {
        pollfd(fd: $0, events: Int16(POLLIN), revents: 0)
      }
      let count = poll(&waiting, 4, timeout)
      if count < 0 && errno != EINTR { throw SystemError("poll") }
      if waiting[1].revents != 0 { throw ProgramEnded() }
      if waiting[2].revents != 0 {
        var information = [UInt8](repeating: 0, count: 128 * 8)
        _ = read(childEvents, &information, information.count)
        try tracer.serveOthers()
      }
      if waiting[0].revents != 0 { return true }
      if waiting[3].revents != 0 { tracer.tickets.look() }
      if count == 0, signalWaits() { throw GivenUp(reason: "a signal waits for the program") }
    }
  }

  private func signalWaits() -> Bool {
    guard let status = contents(of: "/proc/\(tracer.tracee.pid)/task/\(shared.pointee.tid)/status"),
      let own = field("SigPnd", of: status, base: 16), let process = field("ShdPnd", of: status, base: 16)
    else { return false }
    let patient = Self.patientSignals.reduce(UInt64(0)) { $0 | 1 << UInt64($1 - 1) }
    return (own | process) & ~(shared.pointee.mask | patient) != 0
  }

  // MARK: the clone

  /// One that computes the call.
  private struct Clone {
    var name: String
    /// Where its result comes from.
    var stream: Conversation
    /// Nil: it can not be kept.
    var files: MappedFiles?
  }

  private func reach(_ measure: inout CallMeasure) throws -> Clone {
    if let kept = tracer.kept {
      tracer.kept = nil
      defer { kept.end() }
      measure.way = .kept
      if let stream = try send(changesTo: kept) {
        return Clone(name: kept.name, stream: stream, files: kept.files)
      }
      measure.way = .fork
      tracer.releaseClone()
    }
    let files = tracer.decider.mayKeep ? tracer.tracee.mappings().flatMap { MappedFiles(of: $0) } : nil
    let name = try fork()
    tracer.strike(.tracerForked)
    return Clone(
      name: name, stream: try conversation(with: name, ["cat", tracer.streamPath.result]), files: files)
  }

  /// Returns at home, with the clone's name. The clone's copy of this process stays in `AwaySide`.
  private func fork() throws -> String {
    ct_random(ct_key(shared), 16)
    guard let ticket = try tracer.tickets.take(wait) else { throw GivenUp(reason: "no ticket is to be had") }
    try pauseOthers()
    guard let cloning = Conversation(Conversation.request(SF_AGENT_CLONE, ticket: ticket)) else {
      throw GivenUp(reason: "the agent is not there")
    }
    if tracer.options.faults.strikes(.linkOut, call: call) { throw GivenUp(reason: "the link is cut") }
    _ = try wait(for: cloning.descriptor)
    guard let answer = cloning.receive(), answer.error == 0 else {
      stayIfClone(ticket)
      throw GivenUp(reason: "the fork failed")
    }
    if answer.vmid != 0 { AwaySide(tracer, breakpoint).run() }
    resumeOthers()
    var request = Conversation.request(SF_AGENT_CLONE_NAME, ticket: ticket)
    request.vmid = 1
    guard let naming = Conversation(request) else { throw GivenUp(reason: "the agent is not there") }
    _ = try wait(for: naming.descriptor)
    guard let name = naming.receive(), name.error == 0 else { throw GivenUp(reason: "the clone has ended") }
    return message(name)
  }

  /// A clone whose own request went wrong is nobody's: it does not go on as if it were home.
  private func stayIfClone(_ ticket: String) {
    guard let own = contents(of: "/run/snowflock/ticket"), own.starts(with: ticket.utf8) else { return }
    while true { sleep(1000) }
  }

  /// A command in the clone.
  func conversation(with clone: String, _ command: [String]) throws -> Conversation {
    var request = Conversation.request(SF_AGENT_RUN)
    request.number = Int32(command.count)
    guard let stream = Conversation(request, ([clone] + command).flatMap { Array($0.utf8) + [0] }) else {
      throw GivenUp(reason: "the agent is not there")
    }
    return stream
  }

  // MARK: the result

  /// Has the clone's stream sent home. How many bytes of the journal it is.
  private func receive(from stream: Conversation) throws -> Int {
    stream.send(Conversation.request(SF_AGENT_RUN_INPUT))
    let cut =
      tracer.options.faults.strikes(.linkHome, call: call)
      ? Int(tracer.options.faults.chance(call: call, below: 6000)) : Int.max
    var count = 0
    var progress = ResultStream.Progress()
    while true {
      _ = try wait(for: stream.descriptor)
      var fits = true
      guard
        let answer = stream.receive({ bytes in
          if fits { fits = tracer.journal.append(bytes, at: count) }
        }), fits
      else { throw GivenUp(reason: "the result does not fit") }
      switch Int(answer.type) {
      case SF_AGENT_RUN_OUTPUT where answer.how == 1: count += Int(answer.result_length)
      case SF_AGENT_RUN_OUTPUT, SF_AGENT_RUN_CREDIT: continue
      default:
        let words = message(answer)
        throw GivenUp(
          reason: "the clone's result has ended early"
            + (words.isEmpty ? ", status \(answer.status)" : ": " + words))
      }
      if count >= cut { throw GivenUp(reason: "the link is cut") }
      try progress.look(tracer.journal.bytes(count))
      if count > 0 { tracer.strike(.tracerReceiving) }
      guard let total = progress.total, count >= total else { continue }
      guard count == total else { throw GivenUp(reason: "more than the result came") }
      return count
    }
  }

  // MARK: threads

  private func pauseOthers() throws(ProgramEnded) {
    for tid in tracer.tracee.threads() where tid != shared.pointee.tid && !otherThreads.contains(tid) {
      try tracer.tracee.park(tid, isStopped: false)
      otherThreads.append(tid)
    }
  }

  private func resumeOthers() {
    for tid in otherThreads { _ = ct_continue(tid, 0) }
    otherThreads = []
  }
}
