import CGuest
import Glibc
import GuestWire

/// The agent: what the host says, what the guest's processes ask, and what follows for the other side.
///
///          hello                 prepare                 identity (a new epoch)
///  (boot) ───────▶ connected ───────────────▶ prepared ───────────────────────▶ connected, as a clone
///                      ▲                         │ resume, hello
///                      └─────────────────────────┘
final class Agent {
  static let version = "1.0"

  private let loop: EventLoop
  private let port: HostPort
  private let requests: Requests
  private let commands: Commands
  private let runs: Runs
  private let server: LocalServer
  private let reaper: Reaper
  private let clone: CloneLife
  private let identity: Identity
  private let kernelNote = KernelNote()
  private var hasReportedViolation = false
  /// Of the sfd that the commands were started by.
  private var session: UInt64 = 0
  /// Tickets that were given out here, or to the VM that this one was forked from. A program's made-up ticket goes no
  /// further: the host takes one for a lie of the whole VM.
  private var tickets: Set<String> = []

  init(loop: EventLoop, port: HostPort) throws(SystemError) {
    let requests = Requests(port: port)
    self.loop = loop
    self.port = port
    self.requests = requests
    commands = Commands(loop: loop, port: port)
    runs = Runs(port: port, requests: requests)
    reaper = try Reaper(loop: loop)
    clone = CloneLife(loop: loop) { vmid, status in
      requests.ask(.exit(vmid: vmid, status: status, result: []), for: nil)
    }
    identity = try Identity()
    server = try LocalServer(path: SF_AGENT_SOCKET, loop: loop)
    server.onRequest = { [unowned self] in ask($0, $1, result: $2) }
    server.onClose = { [unowned self] in
      self.requests.cancel($0)
      runs.cancel($0)
    }
    reaper.onExit = { [unowned self] pid, status in
      clone.noteReaped(pid: pid, status: status)
      commands.exited(pid: pid, status: status)
    }
    port.onFrame = { [unowned self] in receive($0) }
  }

  // MARK: - The host

  private func receive(_ frame: Frame) {
    let message: GuestMessage
    do {
      message = try GuestMessage(frame, receiver: .guest)
    } catch {
      if !hasReportedViolation { log("the host broke the protocol: \(error)") }
      hasReportedViolation = true
      return
    }
    switch message {
    case .hello(let hello):
      welcome(hello, request: frame.request)
    case .identity(let identity):
      become(identity, request: frame.request)
    default:
      // What was said to the VM that this one was forked from.
      guard frame.epoch == port.epoch else { return }
      obey(message, request: frame.request)
    }
  }

  private func obey(_ message: GuestMessage, request: UInt32) {
    switch message {
    case .prepare(let dropsCache): prepare(request: request, dropsCache: dropsCache)
    case .resume: goOn()
    case .shutdown: Init.powerOff()
    case .network(let network): setUp(network, request: request)
    case .exec(let exec): commands.start(exec, request: request)
    case .execInput(let id, let bytes): commands.input(id, bytes)
    case .execInputClosed(let id): commands.closeInput(id)
    case .execSignal(let id, let signal): commands.signal(id, signal)
    case .execCredit(let id, let stream, let bytes): commands.credit(id, stream, bytes)
    case .joinStatus(let status): pass(status, request: request)
    case .runOutput(let stream, let bytes): runs.output(request, stream, bytes)
    case .runExited(let status): runs.exited(request, status)
    case .runCredit(.input, let bytes): runs.credit(request, bytes)
    case .failed(let code, let text):
      if !runs.fail(request, code, text) { answer(message, request: request) }
    case .ticketGranted, .cloned, .cloneNamed, .checkpointed, .done: answer(message, request: request)
    default: break  // the other direction's were refused when decoded
    }
  }

  /// A new sfd, or the first. It also ends a fork whose sfd died: the VM that still runs is the parent. Commands of
  /// another sfd live on, and what they print goes nowhere: whoever read it has gone with that sfd.
  private func welcome(_ hello: GuestMessage.Hello, request: UInt32) {
    port.epoch = hello.epoch
    if hello.session != session {
      commands.detachAll()
      runs.failAll(EIO, "the host's daemon ended meanwhile")
    }
    session = hello.session
    goOn()
    var system = utsname()
    uname(&system)
    port.send(
      .welcome(
        GuestMessage.Welcome(
          agentVersion: Self.version, kernelRelease: text(system.release),
          vcpus: UInt32(sysconf(Int32(_SC_NPROCESSORS_ONLN))),
          bootID: readText("/proc/sys/kernel/random/boot_id") ?? "", epoch: hello.epoch)),
      request: request)
    requests.sendAgain()
  }

  private func setUp(_ network: GuestMessage.Network, request: UInt32) {
    port.send(.networkTaken(reason: identity.setUp(network, loop: loop)), request: request)
  }

  private func prepare(request: UInt32, dropsCache: Bool) {
    // Were an earlier fork's end missed, the answer would be held back with all else.
    goOn()
    do {
      try identity.prepare()
      if dropsCache { try PageCache.drop() }
      port.send(
        .prepared(reason: nil, noteAddress: kernelNote.address, noteBytes: kernelNote.bytes), request: request
      )
      port.hold()
    } catch {
      port.send(.prepared(reason: "\(error)", noteAddress: 0, noteBytes: 0), request: request)
    }
  }

  /// The parent, after a fork.
  private func goOn() {
    identity.goOn()
    port.release()
  }

  private func become(_ new: GuestMessage.Identity, request: UInt32) {
    let begin = monotonicMicroseconds()
    port.epoch = new.epoch
    port.releaseDroppingHeld()
    commands.detachAll()
    server.forgetGifts()
    runs.failAll(ECANCELED, "the VM was forked, and the command goes on in the parent")
    let reason = identity.take(new)
    port.send(
      .identityTaken(.init(reason: reason, microseconds: monotonicMicroseconds() - begin)),
      request: request)
    guard reason == nil else {
      log("identity refused: \(reason!)")
      return
    }
    clone.begin(first: new.vmid, count: max(new.processes, 1))
    guard let waiting = requests.takeAtFork(new.cloneRequest), let client = waiting.client else { return }
    _ = clone.claim(new.vmid, pid: client.pid)
    var answer = sf_agent_answer()
    answer.vmid = new.vmid
    answer.count = max(new.processes, 1)
    copyText(new.snapshot, to: &answer.id)
    client.finish(answer)
  }

  // MARK: - The guest's processes

  private func ask(_ client: LocalClient, _ request: sf_agent_request, result: [UInt8]) {
    let ticket = text(request.ticket)
    let takesTicket = [
      SF_AGENT_CLONE, SF_AGENT_CREATE_CLONES, SF_AGENT_JOIN, SF_AGENT_KILL, SF_AGENT_CLONE_NAME,
    ]
    if takesTicket.contains(Int(request.type)), !tickets.contains(ticket) {
      return client.fail(ENOENT, "there is no such ticket")
    }
    switch Int(request.type) {
    case SF_AGENT_REQUEST_TICKET:
      guard request.number > 0 else { return client.fail(EINVAL, "a ticket is for at least one clone") }
      requests.ask(
        .requestTicket(clones: UInt32(request.number), hierarchical: request.flag != 0), for: client)
    case SF_AGENT_REQUEST_TICKET_ON:
      guard request.number > 0 else { return client.fail(EINVAL, "a ticket is for at least one clone") }
      guard let host = hostName(result) else { return client.fail(ENOENT, "there is no host of this name") }
      requests.ask(
        .requestTicket(clones: UInt32(request.number), hierarchical: request.flag != 0, host: host),
        for: client)
    case SF_AGENT_CLONE:
      requests.ask(.clone(ticket: ticket), for: client)
    case SF_AGENT_CHECKPOINT:
      requests.ask(.checkpoint, for: client)
    case SF_AGENT_CREATE_CLONES:
      requests.ask(.createClones(snapshot: text(request.snapshot), ticket: ticket), for: client)
    case SF_AGENT_JOIN:
      requests.ask(.join(ticket: ticket, timeoutMilliseconds: request.timeout_ms), for: client)
    case SF_AGENT_KILL:
      requests.ask(.kill(ticket: ticket), for: client)
    case SF_AGENT_CLONE_NAME:
      requests.ask(.cloneName(ticket: ticket, vmid: request.vmid), for: client)
    case SF_AGENT_RUN:
      runs.start(client, request, strings: result)
    case SF_AGENT_EXIT:
      guard clone.isAlive(request.vmid) else { return client.fail(EPERM, "not a clone that runs") }
      clone.exits(request.vmid)
      requests.ask(.exit(vmid: request.vmid, status: request.number, result: result), for: client)
    case SF_AGENT_CLAIM:
      guard clone.claim(request.vmid, pid: client.pid) else {
        return client.fail(EPERM, "the vmid is not to be claimed")
      }
      client.finish(sf_agent_answer())
    default:
      client.fail(ENOSYS, "request \(request.type) is not known")
    }
  }

  private func answer(_ message: GuestMessage, request: UInt32) {
    guard let client = requests.take(request)?.client else {
      // The process that asked has gone, and nobody else knows the ticket.
      if case .ticketGranted(let ticket, _) = message { requests.ask(.kill(ticket: ticket), for: nil) }
      return
    }
    var answer = sf_agent_answer()
    switch message {
    case .ticketGranted(let ticket, let granted):
      tickets.insert(ticket)
      copyText(ticket, to: &answer.id)
      answer.count = granted
      return client.give(answer) { [unowned self] in requests.ask(.kill(ticket: ticket), for: nil) }
    case .cloned(let vmid, let granted):
      answer.vmid = vmid
      answer.count = granted
    case .checkpointed(let snapshot):
      copyText(snapshot, to: &answer.id)
    case .cloneNamed(let name):
      guard name.utf8.count < Int(SF_AGENT_MESSAGE_SIZE) else {
        return client.fail(ENAMETOOLONG, "the clone's name is too long")
      }
      copyText(name, to: &answer.message)
    case .failed(let code, let message):
      return client.fail(code, message)
    default: break
    }
    client.finish(answer)
  }

  /// One clone's end, to the process that joins.
  private func pass(_ status: GuestMessage.JoinStatus, request: UInt32) {
    guard let client = requests.peek(request)?.client else { return }
    var answer = sf_agent_answer()
    answer.type = UInt16(SF_AGENT_STATUS)
    answer.vmid = status.vmid
    answer.how = Int32(status.how.rawValue)
    answer.status = status.status
    copyText(status.reason, to: &answer.message)
    client.send(answer, result: status.result)
  }
}
