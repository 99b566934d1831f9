import Foundation
import GuestWire

extension ForkService {
  static let ticketLimit = 1024
  /// How many tickets a VM may have that it has not used yet.
  static let unusedTicketLimit = 4
  /// How many tickets are kept for a join after all of their clones have ended.
  static let finishedTicketLimit = 64
  static let ticketLife = Duration.seconds(600)

  /// What clones are made of: a VM that runs, or a kept snapshot.
  struct CloneSource: Sendable {
    var parent: String
    /// Of the VM that runs; nil: a snapshot outlives its VM.
    var uuid: String?
    var memoryBytes: Int64
    var vcpus: Int
    var image: String
    var commandLine: String
    /// Virtual sizes.
    var diskBytes: [UInt64] = []
    var family: Family?
    var traits: GuestTraits
  }

  func source(vm name: String) throws(ForkError) -> CloneSource {
    let record = try guest(name).record
    guard record.state == .running else {
      throw ForkError(.refused, "cannot fork \(name): it is \(record.state.rawValue). Wait until it runs.")
    }
    return CloneSource(
      parent: name, uuid: record.uuid, memoryBytes: record.memoryBytes, vcpus: record.vcpus,
      image: record.image,
      commandLine: record.commandLine, diskBytes: (record.disks ?? []).map(\.virtualBytes),
      family: record.network?.family, traits: record.traits)
  }

  /// Reserves clones and starts their slots: paused VMs that wait for a device state. This takes the slow part (a
  /// libvirt create) out of the fork, which is why the API has two calls.
  ///
  /// On return every slot of the ticket is warm. Throws `.refused` if not one clone could be had.
  func requestTicket(
    of source: CloneSource, count: Int, hierarchical: Bool, owner: TicketRecord.Owner,
    guestRequest: Int64? = nil, hosts: [String] = [], report: Report
  ) async throws -> TicketRecord {
    let what = "cannot fork \(source.parent)"
    guard (1...Self.ticketLimit).contains(count) else {
      throw ForkError(.invalid, "\(what): \(count) clones. Ask for 1 to \(Self.ticketLimit).")
    }
    let unused = tickets.values.count {
      $0.record.parent == source.parent && ($0.record.state == .granting || $0.record.state == .granted)
    }
    guard unused < Self.unusedTicketLimit else {
      throw ForkError(.refused, "\(what): it has \(unused) tickets that were not used. Use those first.")
    }
    let start = monotonicMicroseconds()
    let processes = hierarchical ? source.vcpus : 1
    let machinesWanted = (count + processes - 1) / processes
    let placements = try resources.place(
      count: machinesWanted,
      of: CloneShape(parent: source.parent, memoryBytes: UInt64(source.memoryBytes), vcpus: source.vcpus),
      on: await loads(of: hosts, what: what))
    let machines = placements.reduce(0) { $0 + $1.count }
    // A VM that has ended meanwhile would take no ticket with it.
    if let uuid = source.uuid, guests[source.parent]?.record.uuid != uuid || !isAlive(source.parent) {
      throw ForkError(.failed, "\(what): it has ended meanwhile. Start it again.")
    }
    let id = "t-" + Self.randomHex(8)
    tickets[id] = Reservation(
      record: TicketRecord(
        id: id, parent: source.parent, owner: owner, guestRequest: guestRequest, hierarchical: hierarchical,
        requested: count, granted: min(count, machines * processes), state: .granting, snapshot: nil,
        createdUnix: Self.unixNow()), diskBytes: source.diskBytes)
    guests[source.parent]?.knownTickets?.insert(id)
    let names: [String]
    do {
      names = try await reserveNames(
        source: source, ticket: id, count: count, placements: placements, processes: processes)
    } catch {
      await removeTicket(id)
      throw ForkError.wrap(what, error)
    }
    await saveTicket(id)
    for name in names { await save(name) }

    let failures = await startSlots(names, report: report)
    for name in names where failures[name] != nil || tickets[id] == nil {
      if guests[name]?.record.ticket == id { await discard(name) }
    }
    guard tickets[id] != nil else {
      throw ForkError(.failed, "\(what): its ticket was ended meanwhile. Ask again.")
    }
    let warm = names.filter { failures[$0] == nil && guests[$0] != nil }
    guard !warm.isEmpty else {
      await removeTicket(id)
      throw ForkError.wrap(what, failures.values.first ?? ForkError(.failed, "\(what): its slots ended."))
    }
    renumber(warm, count: count, processes: processes)
    if let session = guests[source.parent]?.session, guests[source.parent]?.record.state == .running {
      do { try await tellNetwork(source.parent, session) } catch {
        log.error("\(source.parent) was not told the names of its clones: \(error)")
      }
    }
    tickets[id]?.record.granted = warm.reduce(0) { $0 + (guests[$1]?.record.processes ?? 0) }
    tickets[id]?.record.state = .granted
    tickets[id]?.record.ticketMicroseconds = Int64(monotonicMicroseconds() - start)
    await saveTicket(id)
    for name in warm { await save(name) }
    for (name, error) in failures { log.warning("slot \(name) did not start: \(error)") }
    expire(id)
    guard let record = tickets[id]?.record else {
      throw ForkError(.failed, "\(what): its ticket was ended meanwhile. Ask again.")
    }
    return record
  }

  /// A ticket that nobody uses gives its slots back.
  func expire(_ id: String) {
    Task {
      try? await Task.sleep(for: Self.ticketLife)
      guard tickets[id]?.record.state == .granted else { return }
      log.notice("ticket \(id) was not used within \(Self.ticketLife); its slots are ended")
      await removeTicket(id)
    }
  }

  /// Memory promised to slots that have not been activated: the host's free memory does not show it yet.
  func hostLoad(named name: String) -> HostLoad {
    var load = HostLoad(
      hostName: name, memoryFreeBytes: HostMemory.read().available,
      cpus: ProcessInfo.processInfo.activeProcessorCount, reservedBytes: 0, vcpusInUse: 0)
    for guest in guests.values where guest.record.state != .ended && guest.record.host == nil {
      load.vcpusInUse += guest.record.vcpus
      if guest.record.role == .slot {
        load.reservedBytes += EmbeddedResourceManager.reservation(
          memoryBytes: UInt64(guest.record.memoryBytes))
      }
    }
    return load
  }

  // MARK: the ticket's end

  /// The VMs of a ticket, by vmid.
  func machines(of ticket: String) -> [VMRecord] {
    guests.values.map(\.record).filter { $0.ticket == ticket }.sorted { $0.vmid < $1.vmid }
  }

  func isFinished(_ id: String) -> Bool {
    guard let ticket = tickets[id], ticket.record.state == .cloned else { return false }
    return ticket.exits.count >= ticket.record.granted
      && !machines(of: id).contains { $0.state != .ended }
  }

  /// Waits until every clone of the ticket has exited, was killed or was lost, and takes the ticket away.
  /// Nil: the time was over; the ticket stays.
  func join(ticket id: String, deadline: ContinuousClock.Instant?, report: Report) async throws
    -> [ExitRecord]?
  {
    guard let ticket = tickets[id] else { throw unknownTicket(id) }
    guard ticket.record.state == .cloned || ticket.record.state == .cloning else {
      throw ForkError(.refused, "cannot join \(id): nothing was cloned with it yet. Clone first.")
    }
    var told = -1
    while !isFinished(id) {
      guard let ticket = tickets[id] else { throw unknownTicket(id) }
      if ticket.exits.count != told {
        told = ticket.exits.count
        await report(
          Progress(phase: "join", done: told, total: ticket.record.granted, text: "waiting for clones"))
        continue
      }
      if let deadline, ContinuousClock.now >= deadline { return nil }
      try Task.checkCancellation()
      await waitForChange(of: id, until: deadline)
    }
    let exits = tickets[id]?.exits.values.sorted { $0.vmid < $1.vmid } ?? []
    await removeTicket(id)
    return exits
  }

  func unknownTicket(_ id: String) -> ForkError {
    ForkError(.notFound, "there is no ticket \(id). It may have been joined already; see sfctl ticket ls.")
  }

  /// Ends all of a ticket's clones; they are reported as killed by a join that follows. Answers how many it ended.
  @discardableResult
  func kill(ticket id: String, reason: String) async throws -> Int {
    guard let ticket = tickets[id] else { throw unknownTicket(id) }
    if ticket.record.state == .granted || ticket.record.state == .granting {
      let count = machines(of: id).count
      await removeTicket(id)
      return count
    }
    let alive = machines(of: id).filter { !$0.state.isOver }
    await withTaskGroup(of: Void.self) { group in
      for record in alive {
        group.addTask {
          await self.completeSnapshots(of: record.name)
          await self.endClone(record.name, .killed, reason: reason)
        }
      }
    }
    return alive.count
  }

  /// The ticket and all that it holds: slots not used, records of ended clones.
  func removeTicket(_ id: String) async {
    tickets[id] = nil
    await withTaskGroup(of: Void.self) { group in
      for record in machines(of: id) {
        group.addTask {
          // One that is being ended is left to who does that.
          if record.state.isOver {
            await self.untilLetGo(record.name)
          } else {
            await self.discard(record.name)
          }
        }
      }
    }
    let ended = machines(of: id)
    if outcomes[id] != nil { outcomes[id]?.clones = ended }
    for record in ended { guests[record.name] = nil }
    await persist("the end of ticket \(id)") { try await self.store.delete(ticket: id) }
    changed(id)
    await removeUnusedSnapshots()
  }

  /// Forgets the oldest of the finished tickets that nobody has joined.
  func pruneFinishedTickets() async {
    let finished = tickets.values.map(\.record).filter { ticket in
      isFinished(ticket.id) && machines(of: ticket.id).allSatisfy { holders[$0.name] == nil }
    }
    guard finished.count > Self.finishedTicketLimit else { return }
    let oldest = finished.sorted { $0.createdUnix < $1.createdUnix }.prefix(
      finished.count - Self.finishedTicketLimit)
    for record in oldest { await removeTicket(record.id) }
  }

  /// After a fork that failed before its fork point: the ticket is of no use to a command that ends.
  func removeUnusedTicket(_ id: String) async {
    guard let ticket = tickets[id] else { return }
    if ticket.record.state != .cloned || machines(of: id).allSatisfy({ $0.state == .ended }) {
      await removeTicket(id)
    }
  }
}
