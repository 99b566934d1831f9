import Foundation
import LinuxSystem
import Memtap
import Wire

/// This host's part in tickets whose home is another host.
extension ForkService {
  /// Starts slots for another host's ticket. Answers of each whether it is warm. The same call may come again.
  func startSlots(_ request: Snowfork_V1_StartSlotsRequest) async throws -> Snowfork_V1_StartSlotsReply {
    let id = request.ticket
    try requireHome(request.home, ofTicket: id)
    if tickets[id] == nil {
      tickets[id] = Reservation(
        record: TicketRecord(
          id: id, parent: request.parent, owner: .operatorCommand, guestRequest: nil,
          hierarchical: request.hierarchical, requested: request.slots.count, granted: request.slots.count,
          state: .granting, snapshot: nil, createdUnix: Self.unixNow(), home: request.home),
        diskBytes: request.diskBytes)
    }
    let family = request.hasNetwork ? Family(request.network) : nil
    var errors: [String: String] = [:]
    var names: [String] = []
    for slot in request.slots {
      if let old = guests[slot.name]?.record, old.home == request.home, let ticket = old.ticket, ticket != id
      {
        // Its home has given it up, or it would not give the name again.
        _ = await endForeign([slot.name], of: ticket, home: request.home, reason: "its name was given again")
      }
      if guests[slot.name]?.record.ticket == id { continue }
      guard guests[slot.name] == nil else {
        errors[slot.name] = "a VM named \(slot.name) exists on this host"
        continue
      }
      guests[slot.name] = Guest(
        record: VMRecord(
          name: slot.name, uuid: UUID().uuidString.lowercased(), role: .slot, state: .starting,
          vmid: Int(slot.vmid), processes: Int(slot.processes), ticket: id, image: request.image,
          memoryBytes: Int64(request.memoryBytes), vcpus: Int(request.vcpus),
          commandLine: request.kernelCommandLine, generationID: UUID().uuidString.lowercased(),
          shimToken: Self.randomHex(32), epoch: Int64.random(in: 1...Int64.max), cpuLimitPercent: 0,
          createdUnix: Self.unixNow(), home: request.home,
          network: family.map { NetworkCard(family: $0, number: Int(slot.number)) },
          traits: GuestTraits(request.traits)))
      names.append(slot.name)
    }
    await saveTicket(id)
    for name in names { await save(name) }
    for (name, error) in await startSlots(names, report: { _ in }) {
      errors[name] = "\(error)"
      if guests[name]?.record.ticket == id { await discard(name) }
    }
    for slot in request.slots { await untilNot(.starting, slot.name) }
    for slot in request.slots where guests[slot.name] == nil && errors[slot.name] == nil {
      errors[slot.name] = "it has ended"
    }
    if tickets[id]?.record.state == .granting {
      tickets[id]?.record.state = .granted
      await saveTicket(id)
      expire(id)
    }
    return .with { reply in
      reply.slots = request.slots.map { slot in
        .with {
          $0.name = slot.name
          $0.pid = Int32(truncatingIfNeeded: guests[slot.name]?.record.pid ?? 0)
          $0.error = errors[slot.name] ?? ""
        }
      }
    }
  }

  private func requireHome(_ home: String, ofTicket id: String) throws {
    guard let ticket = tickets[id]?.record, ticket.home != home else { return }
    throw ForkError(.refused, "ticket \(id) is not \(home)'s.")
  }

  /// Waits as long as the VM is in that state.
  func untilNot(_ state: VMRecord.State, _ name: String) async {
    let deadline = ContinuousClock.now + .seconds(60)
    while guests[name]?.record.state == state, ContinuousClock.now < deadline, !Task.isCancelled {
      try? await Task.sleep(for: .milliseconds(10))
    }
  }

  /// Takes a snapshot of another host: on return its descriptor has been verified and slots can be activated on it.
  func receive(_ header: Snowfork_V1_DeliverSnapshotRequest.Header, _ sent: Data) async throws {
    let id = header.snapshot
    try checkName(id)
    if let known = snapshots[id] {
      guard known.home == header.home else {
        throw ForkError(.exists, "cannot take snapshot \(id): this host has one of that name.")
      }
      if let lost = known.lost { throw ForkError(.failed, "cannot take snapshot \(id) again: \(lost).") }
      snapshots[id]?.kept = true
      return
    }
    // What waits for an earlier fork's end may be applied by now.
    let replica = Self.hexadecimal(header.warm.replica)
    if header.hasWarm, standbys[replica]?.queue.isEmpty == false { await settle(replica) }
    let descriptor =
      header.warm.descriptorIsChange ? try await descriptor(of: sent, header) : sent
    guard descriptor.count == Int(header.descriptorBytes), let own = await cluster.own else {
      throw ForkError(.failed, "cannot take snapshot \(id): its descriptor came incomplete.")
    }
    var record = SnapshotRecord(
      id: id, parent: header.parent, kept: true, image: header.image, memoryBytes: Int64(header.memoryBytes),
      vcpus: Int(header.vcpus), commandLine: header.kernelCommandLine,
      descriptorBytes: Int64(descriptor.count),
      pauseMicroseconds: 0, createdUnix: Self.unixNow(), checkpointRequest: Int64(header.checkpointRequest),
      lost: nil, home: header.home)
    let path = configuration.descriptorPath(id)
    let directory = configuration.snapshotDirectory(id)
    let compatibility = hypervisor.compatibility
    do {
      let reading = record
      let described = try await workers.run {
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        try descriptor.write(to: URL(fileURLWithPath: path))
        return try Self.verifiedDescriptor(path, snapshot: reading, compatibility: compatibility)
      }
      record.disks = try diskPoints(described)
      try await openLayers(of: record)
      var remote = RemoteSnapshot(
        id: id, host: header.home, parent: header.parent, ramBytes: header.memoryBytes,
        existing: described.existingPages.map { .init(first: UInt32($0.first), count: UInt32($0.count)) },
        origin: PageOrigin(header.origin), localAddress: own.address, push: header.push)
      remote.warm = warmth(header)
      let attached = remote
      try await memtap.run { try $0.attach(attached) }
      if header.push { try await fetchLayers(of: record) }
    } catch {
      try? FileManager.default.removeItem(atPath: directory)
      throw ForkError.wrap("cannot take snapshot \(id)", error)
    }
    snapshots[id] = record
    await persist("snapshot \(id)") { try await self.store.save(record) }
  }

  /// Makes clones in slots that were started for another host's ticket; `ready` is called as each runs or is lost. The
  /// same call may come again.
  func activate(
    _ request: Snowfork_V1_ActivateRequest, ready: @Sendable (Snowfork_V1_ActivateReply) async -> Void
  ) async throws {
    let log = PhaseLog()
    guard let snapshot = snapshots[request.snapshot], snapshot.home == request.home else {
      throw ForkError(.notFound, "snapshot \(request.snapshot) did not come to this host.")
    }
    let deviceState = try await readDescriptor(snapshot)
    try requireHome(request.home, ofTicket: request.ticket)
    var names: [String] = []
    var begun: [String] = []
    for slot in request.slots where guests[slot.name]?.record.ticket == request.ticket {
      guard guests[slot.name]?.record.state == .warm else {
        begun.append(slot.name)
        continue
      }
      guests[slot.name]?.record.vmid = Int(slot.vmid)
      guests[slot.name]?.record.processes = Int(slot.processes)
      guests[slot.name]?.record.snapshot = snapshot.id
      guests[slot.name]?.record.state = .activating
      guests[slot.name]?.record.role = .clone
      names.append(slot.name)
    }
    tickets[request.ticket]?.record.state = .cloning
    tickets[request.ticket]?.record.snapshot = snapshot.id
    _ = await activateHere(
      names, snapshot: snapshot, deviceState: deviceState, request: request.cloneRequest, log: log,
      total: names.count, report: { _ in }
    ) { name, activated in
      await save(name)
      await ready(activateReply(of: name, activated: activated))
    }
    // An earlier call made these.
    for name in begun {
      await untilNot(.activating, name)
      await ready(activateReply(of: name, activated: 0))
    }
    tickets[request.ticket]?.record.state = .cloned
    await saveTicket(request.ticket)
  }

  private func activateReply(of name: String, activated: UInt64) -> Snowfork_V1_ActivateReply {
    let record = guests[name]?.record
    let isRunning = record?.state == .running
    return .with {
      $0.name = name
      $0.state = isRunning ? "running" : "lost"
      $0.reason = record?.reason ?? (isRunning ? "" : "it ended at once")
      $0.activateUs = UInt64(record?.activateMicroseconds ?? 0)
      $0.activatedUs = activated
      $0.readyUs = UInt64(record?.readyMicroseconds ?? 0)
    }
  }

  /// The home of these clones has no more use for them. A name may have come to a later ticket's clone meanwhile.
  func endForeign(_ names: [String], of ticket: String, home: String, reason: String) async -> Int {
    var count = 0
    for name in names {
      let key = "end of \(name)"
      await takeTurn(key)
      defer { turns.leave(key) }
      guard let record = guests[name]?.record, record.home == home, record.ticket == ticket else { continue }
      if record.role == .slot {
        await discard(name)
      } else {
        await completeSnapshots(of: name)
        await endClone(name, .killed, reason: reason)
        await untilGone(name)
      }
      await settle(name, of: ticket)
      count += 1
    }
    return count
  }

  /// Forgets a clone of another's ticket whose end needs no telling any more, and the ticket with its last one. The name
  /// may have come to a later ticket's slot meanwhile.
  private func settle(_ name: String, of ticket: String) async {
    if let record = guests[name]?.record, record.ticket == ticket, record.state == .ended {
      unreported.remove(name)
      guests[name] = nil
      await persist("the end of VM \(name)") { try await self.store.delete(vm: name) }
    }
    await forgetEmptyForeignTickets()
  }

  private func forgetEmptyForeignTickets() async {
    for (id, ticket) in tickets where ticket.record.home != nil && ticket.record.state != .granting {
      guard machines(of: id).isEmpty else { continue }
      tickets[id] = nil
      await persist("the end of ticket \(id)") { try await self.store.delete(ticket: id) }
    }
  }

  /// The home drops a snapshot; or says that no page of it will come any more.
  func dropForeign(_ id: String, home: String, gone reason: String) async {
    guard snapshots[id]?.home == home else { return }
    if !reason.isEmpty { try? await memtap.run { try $0.originGone(snapshot: id, reason: reason) } }
    snapshots[id]?.kept = false
    await release(id)
    await removeUnusedSnapshots()
  }

  /// Tells homes of the clones that have ended here; again with each hello until it is answered.
  func reportEnds() async {
    for name in unreported {
      guard let record = guests[name]?.record, let home = record.home, let ticket = record.ticket else {
        unreported.remove(name)
        continue
      }
      guard await cluster.isEnrolled(home) else {
        await settle(name, of: ticket)
        continue
      }
      guard record.state == .ended, let connection = try? await cluster.reach(home) else { continue }
      let vmids = record.vmid..<record.vmid + record.processes
      let ends = vmids.map { vmid in
        Snowfork_V1_CloneEnd.with {
          $0.ticket = ticket
          $0.name = name
          $0.machineEnded = vmid == vmids.upperBound - 1
          $0.touchedBytes = UInt64(record.touchedBytes)
          $0.privateBytes = UInt64(record.privateBytes)
          $0.status =
            tickets[ticket]?.exits[vmid]?.wireStatus
            ?? .with {
              $0.vmid = UInt32(vmid)
              $0.how = record.how ?? "lost"
              $0.reason = record.reason ?? ""
            }
        }
      }
      let host = await cluster.host
      do {
        _ = try await connection.peer.reportEnds(
          .with {
            $0.host = host
            $0.ends = ends
          }, options: .within(.seconds(10)))
        await settle(name, of: ticket)
      } catch {
        log.notice("the end of \(name) was not reported to \(home): \(error)")
      }
    }
  }
}
