import Foundation
import GRPCCore
import GuestWire
import Wire

/// Commands that a guest's programs run in clones of their VM. The guest is not trusted: which VM is whose is decided
/// here, from the records.
extension ForkService {
  /// Those that are being ended still take room.
  private static let openRunLimit = 2 * GuestMessage.runLimit

  func serve(_ run: GuestRun, from session: GuestSession) async {
    let vm = session.vm
    guard openRuns[vm, default: 0] < Self.openRunLimit else {
      run.fail(errno: EAGAIN, "too many commands of this VM are being ended; try again")
      return
    }
    openRuns[vm, default: 0] += 1
    let relaying = Task { try await relay(run, of: vm) }
    run.whenOver { relaying.cancel() }
    do {
      try await relaying.value
      run.fail(errno: EIO, "the command was cut short")
    } catch {
      let (number, message) = Self.reason(error)
      run.fail(errno: number, message)
    }
    openRuns[vm, default: 1] -= 1
    if openRuns[vm] == 0 { openRuns[vm] = nil }
  }

  private func relay(_ run: GuestRun, of vm: String) async throws {
    let name = run.command.clone
    guard name != vm else { throw Self.notOwn(name, vm) }
    guard !run.command.arguments.isEmpty else { throw ForkError(.invalid, "no command was named") }
    let start = Snowfork_V1_ExecInput.with {
      $0.start = .with {
        $0.name = name
        $0.arguments = run.command.arguments
        $0.environment = run.command.environment
        $0.ancestor = vm
      }
    }
    let input = GuestRunInput(run: run, start: start)
    try await ExecRelay(service: self).run(
      input: RPCAsyncSequence(wrapping: AsyncThrowingStream { try await input.next() }),
      output: RPCWriter(wrapping: GuestRunOutput(run: run)))
  }

  private static func reason(_ error: any Error) -> (errno: Int32, message: String) {
    switch error {
    case let error as RPCError: (error.code == .notFound ? ENOENT : EIO, error.message)
    case let error as ForkError: (error.errno, error.message)
    default: (EIO, "\(error)")
    }
  }

  // MARK: whose VM is whose

  /// The same whether there is such a VM or not: a guest learns nothing of others'.
  private static func notOwn(_ name: String, _ ancestor: String) -> ForkError {
    ForkError(.notFound, "\(ancestor) has no clone named \(name).")
  }

  /// Goes down from a VM of this host to `name`, one generation at a time, waiting for clones that are being made.
  /// Answers where the way leaves this host: the host, and the VM there from which to go on; nil: it ends here. Each
  /// generation's tickets are known where its parent runs, so no host has to believe another's word of its own VMs.
  func way(from ancestor: String, to name: String) async throws -> (host: String, ancestor: String)? {
    guard let first = guests[ancestor]?.record, !first.state.isOver, first.host == nil else {
      throw Self.notOwn(name, ancestor)
    }
    var elder = first
    while elder.name != name {
      guard name.hasPrefix(elder.name + "."),
        let number = name.dropFirst(elder.name.count + 1).split(separator: ".").first
      else { throw Self.notOwn(name, ancestor) }
      let child = "\(elder.name).\(number)"
      guard isClone(child, of: elder) else { throw Self.notOwn(name, ancestor) }
      await untilNot(.activating, child)
      guard let record = guests[child]?.record, isClone(child, of: elder) else {
        throw Self.notOwn(name, ancestor)
      }
      if let host = record.host { return (host, child) }
      elder = record
    }
    return nil
  }

  /// By what it was made of, not by its name alone: a VM may have had the parent's name before, and its kept snapshots
  /// have clones. After an adoption the time has to do.
  private func isClone(_ name: String, of parent: VMRecord) -> Bool {
    guard let record = guests[name]?.record, record.role == .clone, !record.state.isOver,
      let ticket = record.ticket.flatMap({ tickets[$0]?.record }), ticket.parent == parent.name,
      ticket.home == nil, let snapshot = ticket.snapshot
    else { return false }
    if let own = guests[parent.name]?.forkPoints { return own.contains(snapshot) }
    return snapshots[snapshot].map { $0.createdUnix >= parent.createdUnix } ?? false
  }

  /// The name of the VM in which a vmid lives, once it runs; nil: it has ended.
  func runningClone(_ vmid: Int, of ticket: String) async throws -> String? {
    guard let ticketRecord = tickets[ticket]?.record else { return nil }
    guard ticketRecord.state == .cloning || ticketRecord.state == .cloned else {
      throw ForkError(.refused, "nothing was cloned with \(ticket) yet")
    }
    let machine = machines(of: ticket).first { ($0.vmid..<$0.vmid + $0.processes).contains(vmid) }
    guard let name = machine?.name else { return nil }
    await untilNot(.activating, name)
    return guests[name]?.record.ticket == ticket && guests[name]?.record.state == .running ? name : nil
  }
}

/// What the process sends, as if it were an sfctl that speaks to this host's daemon. It has no end: a process that has
/// gone is a broken stream, after which the command is not to go on.
private actor GuestRunInput {
  private let run: GuestRun
  private var start: Snowfork_V1_ExecInput?

  init(run: GuestRun, start: Snowfork_V1_ExecInput) {
    self.run = run
    self.start = start
  }

  func next() async throws -> Snowfork_V1_ExecInput? {
    if let start {
      self.start = nil
      return start
    }
    switch await run.next() {
    case .bytes(let bytes): return .with { $0.stdin = Data(bytes) }
    case .closed: return .with { $0.stdinClosed = true }
    case .signal(let number): return .with { $0.signal = number }
    case nil: throw CancellationError()
    }
  }
}

private struct GuestRunOutput: RPCWriterProtocol {
  let run: GuestRun

  func write(_ message: Snowfork_V1_ExecOutput) async throws {
    switch message.kind {
    case .stdout(let bytes): try await run.output(.output, Array(bytes))
    case .stderr(let bytes): try await run.output(.error, Array(bytes))
    case .exitStatus(let status): run.exited(status)
    case nil: break
    }
  }

  func write(contentsOf messages: some Sequence<Snowfork_V1_ExecOutput>) async throws {
    for message in messages { try await write(message) }
  }
}
