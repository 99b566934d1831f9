import Foundation
import GuestWire

extension ForkService {
  /// Serves one guest's channel until it closes. Requests of one guest run side by side; the guest can have only so
  /// many of them open.
  func listen(to session: GuestSession) async {
    for await event in session.events {
      switch event {
      case .request(let request, let message):
        // An agent says hello's requests again: what is being answered is not begun twice.
        guard !openRequests[session.vm, default: []].contains(request) else { continue }
        guard openRequests[session.vm, default: []].count < Self.openRequestLimit else {
          cutOff(session, "more than \(Self.openRequestLimit) requests at once")
          return
        }
        openRequests[session.vm, default: []].insert(request)
        Task {
          await self.serve(message, request: request, from: session)
          self.requestDone(session.vm, request)
        }
      case .run(let run):
        Task { await self.serve(run, from: session) }
      case .cutOff(let reason):
        cutOff(session, reason)
      case .closed:
        if guests[session.vm]?.session === session { guests[session.vm]?.session = nil }
      }
    }
  }

  /// Requests that a guest may have open at once.
  private static let openRequestLimit = 256

  private func requestDone(_ vm: String, _ request: UInt32) {
    openRequests[vm]?.remove(request)
    if openRequests[vm]?.isEmpty == true { openRequests[vm] = nil }
  }

  private func cutOff(_ session: GuestSession, _ reason: String) {
    guard guests[session.vm]?.session === session, guests[session.vm]?.cutOff == nil else { return }
    guests[session.vm]?.cutOff = reason
    guests[session.vm]?.session = nil
    session.close()
    log.warning("the agent of \(session.vm) was cut off: \(reason)")
  }

  private enum GuestFault: Error {
    /// The request is refused, the guest's program learns the errno.
    case errno(Int32, String)
    /// No honest agent sends this.
    case lie(String)
  }

  /// By the connection there is now: the one that the request came by may have ended.
  private func answer(_ vm: String, _ request: UInt32, _ message: GuestMessage) {
    guests[vm]?.session?.answer(request, message)
  }

  private func serve(_ message: GuestMessage, request: UInt32, from session: GuestSession) async {
    let vm = session.vm
    do {
      switch message {
      case .requestTicket(let count, let hierarchical, let host):
        let ticket = try await grant(vm, request, Int(count), hierarchical, host)
        answer(vm, request, .ticketGranted(ticket: ticket.id, granted: UInt32(ticket.granted)))
      case .clone(let id):
        let ticket = try ownTicket(id, vm)
        let granted = UInt32(ticket.granted)
        if ticket.state == .cloned || ticket.state == .cloning, isRepeated(vm) {
          answer(vm, request, .cloned(vmid: 0, granted: granted))
          return
        }
        var told = false
        _ = try await fork(ticket: id, cloneRequest: request, report: { _ in }) {
          told = true
          answer(vm, request, .cloned(vmid: 0, granted: granted))
        }
        if !told { answer(vm, request, .cloned(vmid: 0, granted: granted)) }
      case .checkpoint:
        if let made = snapshots.values.first(where: {
          $0.parent == vm && $0.checkpointRequest == Int64(request)
        }),
          isRepeated(vm)
        {
          answer(vm, request, .checkpointed(snapshot: made.id))
          return
        }
        var log = PhaseLog()
        let snapshot = try await createSnapshot(of: vm, id: nil, checkpointRequest: request, log: &log)
        answer(vm, request, .checkpointed(snapshot: snapshot.id))
      case .createClones(let snapshotID, let id):
        let ticket = try ownTicket(id, vm)
        if ticket.state == .cloned, isRepeated(vm) {
          answer(vm, request, .done)
          return
        }
        guard let snapshot = snapshots[snapshotID], snapshot.parent == vm else {
          throw GuestFault.errno(ENOENT, "there is no checkpoint \(snapshotID)")
        }
        _ = try await clone(snapshot: snapshot, ticket: id, report: { _ in })
        answer(vm, request, .done)
      case .exit(let vmid, let status, let result):
        try await exit(vm, Int(vmid), Int(status), result)
        answer(vm, request, .done)
      case .join(let id, let milliseconds):
        _ = try ownTicket(id, vm)
        let deadline = milliseconds < 0 ? nil : ContinuousClock.now + .milliseconds(milliseconds)
        guard let exits = try await join(ticket: id, deadline: deadline, report: { _ in }) else {
          throw GuestFault.errno(ETIMEDOUT, "the time-out is over and clones still run")
        }
        for exit in exits { answer(vm, request, .joinStatus(exit.wire)) }
        answer(vm, request, .done)
      case .kill(let id):
        _ = try ownTicket(id, vm)
        try await kill(ticket: id, reason: "killed by sf_kill")
        answer(vm, request, .done)
      case .cloneName(let id, let vmid):
        let ticket = try ownTicket(id, vm)
        guard let name = try await runningClone(Int(vmid), of: ticket.id) else {
          throw GuestFault.errno(ENOENT, "clone \(vmid) of \(id) is not there")
        }
        answer(vm, request, .cloneNamed(name: name))
      case .cancel:
        break  // the asker has gone; what it asked for ends with its ticket
      default:
        throw GuestFault.lie("a message that only the host sends (\(message.type))")
      }
    } catch GuestFault.errno(let number, let text) {
      answer(vm, request, .failed(errno: number, message: text))
    } catch GuestFault.lie(let text) {
      cutOff(session, text)
    } catch {
      let error = ForkError.wrap("\(vm)", error)
      // A guest can have itself refused as often as it likes; what failed is ours.
      if error.code == .failed { log.notice("what a program in \(vm) asked for failed: \(error.message)") }
      answer(vm, request, .failed(errno: error.errno, message: error.message))
    }
  }

  /// Whether this guest may be repeating requests that an earlier daemon had begun to answer.
  private func isRepeated(_ vm: String) -> Bool { guests[vm]?.knownTickets == nil }

  private func grant(
    _ vm: String, _ request: UInt32, _ count: Int, _ hierarchical: Bool, _ host: String
  ) async throws -> TicketRecord {
    if let earlier = tickets.values.first(where: {
      $0.record.parent == vm && $0.record.guestRequest == Int64(request) && isRepeated(vm)
    }) {
      return earlier.record
    }
    guard (1...Self.ticketLimit).contains(count) else {
      throw GuestFault.errno(EINVAL, "a ticket is for 1 to \(Self.ticketLimit) clones")
    }
    let ticket = try await requestTicket(
      of: source(vm: vm), count: count, hierarchical: hierarchical, owner: .guest,
      guestRequest: Int64(request), hosts: host.isEmpty ? [] : [host], report: { _ in })
    keepStandbyClose(ticket.id)
    return ticket
  }

  /// The ticket, if it is this VM's. An agent gives out only tickets it was given, so one that was never given to it
  /// is a lie; one that was and has ended is a program's mistake.
  private func ownTicket(_ id: String, _ vm: String) throws -> TicketRecord {
    if let ticket = tickets[id]?.record, ticket.parent == vm { return ticket }
    guard let known = guests[vm]?.knownTickets, !known.contains(id), !isInherited(id, vm) else {
      throw GuestFault.errno(ENOENT, "there is no ticket \(id); it may have been joined already")
    }
    throw GuestFault.lie("a forged ticket")
  }

  /// A clone's memory holds the tickets of those it descends from.
  private func isInherited(_ id: String, _ vm: String) -> Bool {
    guests.values.contains { vm.hasPrefix($0.record.name + ".") && ($0.knownTickets?.contains(id) ?? true) }
  }

  private func exit(_ vm: String, _ vmid: Int, _ status: Int, _ result: [UInt8]) async throws {
    guard let record = guests[vm]?.record else { return }
    guard record.role == .clone else { throw GuestFault.errno(EPERM, "only a clone can exit") }
    guard (record.vmid..<record.vmid + record.processes).contains(vmid) else {
      throw GuestFault.lie("an exit of vmid \(vmid), which is not its own")
    }
    await exited(vm, vmid: vmid, status: status, result: result)
  }
}

extension ForkError {
  /// What a guest's program sees.
  var errno: Int32 {
    switch code {
    case .invalid: EINVAL
    case .notFound: ENOENT
    case .refused: EAGAIN
    case .exists: EEXIST
    case .failed: EIO
    }
  }
}

extension ExitRecord {
  var wire: GuestMessage.JoinStatus {
    let how: GuestMessage.JoinStatus.How =
      switch self.how {
      case .exited: .exited
      case .killed: .killed
      case .lost: .lost
      }
    return .init(
      vmid: UInt32(vmid), how: how, status: Int32(truncatingIfNeeded: status), result: result, reason: reason)
  }
}
