import Foundation
import Hypervisor
import Memtap

extension ForkService {
  /// Ends a clone for good and records how. Only the first end counts; on return nothing of it is left but its exit.
  func endClone(_ name: String, _ how: ExitRecord.How, reason: String) async {
    guard let record = guests[name]?.record, !record.state.isOver, record.role != .parent else { return }
    hold(name)
    guests[name]?.record.state = .ending
    guests[name]?.record.how = how.rawValue
    guests[name]?.record.reason = reason
    if how == .lost { log.warning("\(name) is lost: \(reason)") }
    if let ticket = record.ticket {
      for vmid in record.vmid..<record.vmid + record.processes where tickets[ticket]?.exits[vmid] == nil {
        await note(
          exit: ExitRecord(ticket: ticket, vmid: vmid, how: how, status: 0, result: [], reason: reason))
      }
    }
    await noteResidency(name)
    await tearDown(name)
    guests[name]?.record.state = .ended
    await save(name)
    letGo(name)
    if record.home != nil {
      unreported.insert(name)
      await reportEnds()
    } else if let ticket = record.ticket, tickets[ticket] != nil {
      changed(ticket)
    } else if guests[name]?.record.uuid == record.uuid {
      guests[name] = nil
      await persist("the end of VM \(name)") { try await self.store.delete(vm: name) }
    }
    await endDescendants(of: name, because: reason)
    await pruneFinishedTickets()
    await removeUnusedSnapshots()
  }

  /// How much of its RAM the clone had come to use, before it goes.
  private func noteResidency(_ name: String) async {
    guard let record = guests[name]?.record, record.host == nil else { return }
    if let ticket = record.ticket, let outcome = outcomes[ticket] {
      guests[name]?.record.endedMicroseconds = Int64(outcome.log.elapsedMicroseconds)
    }
    let memoryDirectory = configuration.memtap.memory
    let memory = try? await workers.run {
      GuestResidency.read(
        pid: Int32(record.pid), below: memoryDirectory, ramBytes: record.memoryBytes)
    }
    guests[name]?.record.touchedBytes = Int64(memory?.presentBytes ?? 0)
    guests[name]?.record.privateBytes = Int64(memory?.privateBytes ?? 0)
  }

  func note(exit: ExitRecord) async {
    guard tickets[exit.ticket] != nil, tickets[exit.ticket]?.exits[exit.vmid] == nil else { return }
    tickets[exit.ticket]?.exits[exit.vmid] = exit
    await persist("an exit of \(exit.ticket)") { try await self.store.save(exit) }
  }

  /// A vmid has called sf_exit. The VM ends with its last one.
  func exited(_ name: String, vmid: Int, status: Int, result: [UInt8]) async {
    guard let clone = guests[name]?.record, let ticket = clone.ticket, !clone.state.isOver else { return }
    await note(
      exit: ExitRecord(ticket: ticket, vmid: vmid, how: .exited, status: status, result: result, reason: ""))
    let vmids = clone.vmid..<clone.vmid + clone.processes
    if vmids.allSatisfy({ tickets[ticket]?.exits[$0] != nil }) {
      await completeSnapshots(of: name)
      await endClone(name, .exited, reason: "")
    }
  }

  /// A device VM has ended. Tickets that a program in it had asked for can be joined by nobody: their clones are
  /// ended and say why. Those of the operator live on as long as their pages can be had.
  func parentEnded(_ name: String, cause: String) async {
    guard let record = guests[name]?.record, record.role == .parent, !record.state.isOver else { return }
    guests[name]?.record.state = .ending
    log.info("\(name) \(cause)")
    await endReplication(of: name)
    await forgetActivated(name)
    await endDescendants(of: name, because: "its parent \(name) \(cause)")
    await discard(name)
    await removeUnusedSnapshots()
  }

  private func endDescendants(of name: String, because reason: String) async {
    // The checkpoints of its programs are nobody's any more; those that the operator made stay.
    for (id, snapshot) in snapshots where snapshot.parent == name && snapshot.checkpointRequest != 0 {
      snapshots[id]?.kept = false
    }
    for (id, ticket) in tickets where ticket.record.parent == name {
      switch (ticket.record.owner, ticket.record.state) {
      case (_, .granting), (_, .granted): await removeTicket(id)
      case (.operatorCommand, _): break
      case (.guest, _):
        _ = try? await kill(ticket: id, reason: reason)
        await removeTicket(id)
      }
    }
  }

  /// `sfctl kill`: a ticket's clones, or one VM. Answers how many VMs it ended.
  func kill(target: String) async throws -> Int {
    if tickets[target] != nil { return try await kill(ticket: target, reason: "killed by sfctl kill") }
    guard let record = guests[target]?.record else {
      throw ForkError(.notFound, "there is no VM or ticket named \(target). See sfctl ps.")
    }
    guard !record.state.isOver else {
      await untilGone(target)
      return 0
    }
    await completeSnapshots(of: target)
    if record.role == .parent {
      await parentEnded(target, cause: "was killed")
    } else {
      await endClone(target, .killed, reason: "killed by sfctl kill")
    }
    return 1
  }

  /// Ends every VM, ticket and snapshot.
  func endAll() async {
    let tickets = tickets.keys
    let parents = guests.filter { !$0.value.record.state.isOver && $0.value.record.role == .parent }.keys
    await withTaskGroup(of: Void.self) { group in
      for id in tickets {
        group.addTask {
          _ = try? await self.kill(ticket: id, reason: "the daemon was told to end all VMs")
          await self.removeTicket(id)
        }
      }
      for name in parents { group.addTask { await self.parentEnded(name, cause: "was ended with all VMs") } }
    }
    for name in replications.keys { await endReplication(of: name) }
    for replica in standbys.keys { await dropStandby(replica) }
    for id in snapshots.keys {
      snapshots[id]?.kept = false
      await release(id)
    }
    await removeUnusedSnapshots()
  }

  // MARK: what happens by itself

  /// libvirt says that a domain has ended.
  func machineEnded(_ name: String, cause: MachineEvent.Cause) async {
    guard let record = guests[name]?.record, !record.state.isOver, record.state != .starting else { return }
    let text =
      switch cause {
      case .shutdown: "powered off"
      case .destroyed: "was ended from outside"
      case .crashed: "crashed"
      case .failed: "ended: its QEMU died"
      }
    switch record.role {
    case .parent: await parentEnded(name, cause: text)
    case .clone where guests[name]?.isStopping == true:
      await endClone(name, .killed, reason: "ended by sfctl vm stop")
    case .clone: await endClone(name, .lost, reason: "the clone \(text) without sf_exit")
    case .slot:
      log.warning("slot \(name) \(text)")
      await discard(name)
      if let ticket = record.ticket {
        tickets[ticket]?.record.granted -= record.processes
        await saveTicket(ticket)
      }
    }
  }

  func pagerSays(_ event: MemtapEvent) async {
    switch event {
    case .mustEnd(let vm, let reason):
      guard let record = guests[vm]?.record else { return }
      if record.role == .parent {
        log.error("\(vm) must end: \(reason)")
        await parentEnded(vm, cause: "was ended: \(reason)")
      } else {
        await endClone(vm, .lost, reason: reason)
      }
    case .snapshotLost(let id, let reason):
      log.warning("snapshot \(id) can not be cloned any more: \(reason)")
      snapshots[id]?.lost = reason
      if let record = snapshots[id] {
        await persist("snapshot \(id)") { try await self.store.save(record) }
      }
    case .vmGone:
      break  // libvirt's event says how it ended
    case .whole(let id):
      log.info("snapshot \(id) is here in full")
    }
  }
}
