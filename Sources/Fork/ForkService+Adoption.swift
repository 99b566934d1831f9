import Foundation
import GuestWire
import Hypervisor
import Memtap

extension ForkService {
  /// Takes over what an earlier daemon left: VMs that run are reconnected to, tickets and snapshots go on, forks that
  /// were in progress are undone, and what nobody knows is ended.
  func adopt() async throws {
    let records = try await store.load(VMRecord.self)
    let ticketRecords = try await store.load(TicketRecord.self)
    let exits = try await store.load(ExitRecord.self)
    let snapshotRecords = try await store.load(SnapshotRecord.self)
    let machines = try await withHypervisor { try $0.machines() }
    let running = Dictionary(
      machines.filter { $0.state != .ended }.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })

    for record in snapshotRecords { snapshots[record.id] = record }
    for record in ticketRecords { tickets[record.id] = Reservation(record: record) }
    for exit in exits { tickets[exit.ticket]?.exits[exit.vmid] = exit }
    for record in records { guests[record.name] = Guest(record: record, knownTickets: nil, forkPoints: nil) }
    unreported = Set(records.filter { $0.home != nil && $0.state == .ended }.map(\.name))

    try await loadReplicas()
    await adoptDisks()
    await adoptSnapshots()
    await undoInterrupted()
    // Before the machines: a guest that is spoken to goes on asking for clones.
    await adoptNetworks()
    await adoptMachines(running)
    for name in running.keys where guests[name] == nil {
      log.notice("ending \(name): no record of it")
      await tearDown(name)
    }
    await adoptStandbys()
    await adoptReplications()
    await removeUnusedSnapshots()
    if !records.isEmpty {
      log.info("took over \(runningCount()) VMs, \(tickets.count) tickets, \(snapshots.count) snapshots")
    }
  }

  /// A snapshot's pages are in memory: after the host's restart they are gone.
  private func adoptSnapshots() async {
    guard let known = try? await memtap.run({ try $0.status().snapshots }) else { return }
    for (id, record) in snapshots where !known.contains(id) {
      if record.kept, record.home == nil {
        snapshots[id]?.lost = "its pages were in memory and the host or the pager's files are gone"
      } else {
        await forgetSnapshot(id)
      }
    }
    let directory = configuration.snapshotDirectory("")
    let described = (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
    // Of a standby that was given a full checkpoint just now nobody has recorded the new one.
    let held = replicaSnapshots.union(known.filter { isOfStandby($0) })
    for id in Set(known).union(described) where snapshots[id] == nil && !held.contains(id) {
      await forgetSnapshot(id)
    }
  }

  /// Those on other hosts are their daemons' affair: hello tells which are left.
  private func adoptMachines(_ running: [String: MachineStatus]) async {
    for (name, guest) in guests where !guest.record.state.isOver && guest.record.host == nil {
      guard let machine = running[name] else {
        let reason = "it ended while no daemon ran"
        if guest.record.role == .clone {
          await endClone(name, .lost, reason: reason)
        } else {
          await discard(name)
        }
        continue
      }
      guests[name]?.record.pid = Int64(machine.pid)
      do {
        if guest.record.state == .running, machine.state == .paused {
          try? await memtap.run { try $0.disarm(vm: name) }
          try await withHypervisor { try $0.resume(name) }
        }
        if guest.record.disks != nil { try await withHypervisor { try $0.endMerging(name) } }
        try await reconcileDisks(of: name)
        if !guest.record.traits.isAgentless, guest.record.state == .running || guest.record.state == .warm {
          try await reconnect(name)
        }
      } catch {
        log.error("cannot reach the agent of \(name): \(error)")
      }
    }
  }

  /// Connects to the agent of a VM that runs, and again by a new connection if it does not answer: what the guest's
  /// kernel had to say to the former connection's end can have hidden the new one's beginning from it.
  private func reconnect(_ name: String) async throws {
    let first = try await connect(name)
    guard let record = guests[name]?.record, record.state == .running else { return }
    Task {
      var session = first
      for attempt in 1...Self.reconnectAttempts {
        do {
          _ = try await session.hello(
            session: UInt64.random(in: 1...UInt64.max), epoch: UInt64(record.epoch),
            hostTimeNanoseconds: Self.wallClockNanoseconds(), timeoutSeconds: 5)
          session.resume(epoch: UInt64(record.epoch))
          return
        } catch {
          guard attempt < Self.reconnectAttempts, guests[name]?.record.state == .running,
            let next = try? await connect(name)
          else {
            log.error("the agent of \(name) does not answer: \(error)")
            return
          }
          log.notice("the agent of \(name) did not answer; connected to it again")
          session = next
        }
      }
    }
  }

  private static let reconnectAttempts = 12

  /// What was half done at the daemon's death is undone: VMs that were starting, tickets being granted, clones
  /// being activated. Their askers learn of it by the ticket's state.
  private func undoInterrupted() async {
    for (name, guest) in guests {
      switch guest.record.state {
      case .activating: await endClone(name, .lost, reason: "the daemon ended during the fork")
      case .starting: await discard(name)
      case .ending:
        await tearDown(name)
        guests[name]?.record.state = .ended
        await save(name)
      case .warm, .running, .ended: break
      }
    }
    for (id, ticket) in tickets {
      switch ticket.record.state {
      case .granting: await removeTicket(id)
      // Its command was told that the daemon ended; a guest's program, or another host, asks again.
      case .granted where ticket.record.owner == .operatorCommand && ticket.record.home == nil:
        await removeTicket(id)
      case .granted: expire(id)
      case .cloning, .cloned:
        tickets[id]?.record.state = .cloned
        for machine in machines(of: id) where machine.state == .warm {
          guests[machine.name]?.record.role = .clone
          await endClone(machine.name, .lost, reason: "the daemon ended during the fork")
        }
        await saveTicket(id)
      }
    }
  }
}
