import Foundation
import GRPCCore
import LinuxSystem
import Wire

/// Forks over several hosts, as the ticket's home: the host of the parent.
extension ForkService {
  // MARK: ticket

  /// What the hosts that may be used have to give: those named, else all that are up.
  func loads(of names: [String], what: String) async throws(ForkError) -> [HostLoad] {
    let here = await cluster.host
    let others = await cluster.others.map(\.name)
    for name in names where name != here && !others.contains(name) {
      throw ForkError(.notFound, "\(what): there is no host \(name). See sfctl host ls.")
    }
    let peers = await cluster.peers
    var loads: [HostLoad] = []
    if names.isEmpty || names.contains(here) { loads.append(hostLoad(named: here)) }
    for name in others where names.isEmpty || names.contains(name) {
      guard let peer = peers[name], peer.isUp else {
        if names.isEmpty { continue }
        throw ForkError(
          .refused, "\(what): host \(name) does not answer. Check it, or name another host with --host.")
      }
      loads.append(
        HostLoad(
          hostName: name, memoryFreeBytes: peer.info.host.memoryFreeBytes, cpus: Int(peer.info.host.cpus),
          reservedBytes: peer.info.reservedBytes, vcpusInUse: Int(peer.info.vcpusInUse)))
    }
    return loads
  }

  /// Starts those of the slots that are for other hosts, there; answers those that failed.
  func startRemoteSlots(_ names: [String]) async -> [String: any Error] {
    let records = names.compactMap { guests[$0]?.record }.filter { $0.host != nil }
    var failures: [String: any Error] = [:]
    await withTaskGroup(of: [String: any Error].self) { group in
      for (host, slots) in Dictionary(grouping: records, by: { $0.host! }) {
        group.addTask { await self.startSlots(slots, on: host) }
      }
      for await failed in group { failures.merge(failed) { first, _ in first } }
    }
    return failures
  }

  private func startSlots(_ slots: [VMRecord], on host: String) async -> [String: any Error] {
    var failures: [String: any Error] = [:]
    do {
      let first = slots[0]
      var request = Snowfork_V1_StartSlotsRequest()
      request.home = await cluster.host
      request.ticket = first.ticket ?? ""
      request.parent = parentName(ofTicket: first.ticket)
      request.image = first.image
      request.kernelCommandLine = first.commandLine
      request.memoryBytes = UInt64(first.memoryBytes)
      request.vcpus = UInt32(first.vcpus)
      request.slots = slots.map(\.slotSpec)
      request.traits = first.traits.wire
      if let family = first.network?.family { request.network = family.wire }
      request.diskBytes = first.ticket.flatMap { tickets[$0]?.diskBytes } ?? []
      let message = request
      let patience = Duration.seconds(10 + slots.count)
      let reply = try await cluster.insist(on: host, timeout: patience) { connection, options in
        try await connection.peer.startSlots(message, options: options)
      }
      for slot in reply.slots {
        if slot.error.isEmpty {
          let record = guests[slot.name]?.record
          guard record?.state == .starting, record?.ticket == first.ticket else { continue }
          guests[slot.name]?.record.state = .warm
          guests[slot.name]?.record.pid = Int64(slot.pid)
          await save(slot.name)
        } else {
          failures[slot.name] = ForkError(.failed, slot.error)
        }
      }
    } catch {
      for slot in slots { failures[slot.name] = Self.explain(error, host: host) }
    }
    return failures
  }

  private func parentName(ofTicket id: String?) -> String { id.flatMap { tickets[$0]?.record.parent } ?? "" }

  static func explain(_ error: any Error, host: String) -> ForkError {
    if let error = error as? ForkError { return error }
    if let error = error as? RPCError { return ForkError(.failed, "host \(host): \(error.message)") }
    return ForkError(.failed, "host \(host): \(error)")
  }

  // MARK: descriptor, activate, ready

  /// Microseconds since the call.
  struct Elsewhere: Sendable {
    /// From the first host's delivery to the last one's; nil: nothing was to be delivered.
    var distributed: ClosedRange<UInt64>?
    /// When the last one's virtual CPUs ran.
    var activated: UInt64 = 0

    mutating func add(_ other: Elsewhere) {
      activated = max(activated, other.activated)
      guard let more = other.distributed else { return }
      let known = distributed ?? more
      distributed = min(known.lowerBound, more.lowerBound)...max(known.upperBound, more.upperBound)
    }
  }

  /// Brings the snapshot to the hosts of these clones, once to each, and makes the clones there.
  func cloneElsewhere(
    _ clones: [VMRecord], snapshot: SnapshotRecord, request: UInt32, log: PhaseLog,
    distribution: Distribution, described: @escaping @Sendable () async throws -> Void
  ) async -> Elsewhere {
    await withTaskGroup(of: Elsewhere.self) { group in
      for (host, slots) in Dictionary(grouping: clones, by: { $0.host! }) {
        group.addTask {
          await self.clone(
            slots, on: host, snapshot: snapshot, request: request, log: log, distribution: distribution,
            described: described)
        }
      }
      var sum = Elsewhere()
      for await one in group { sum.add(one) }
      return sum
    }
  }

  private func clone(
    _ slots: [VMRecord], on host: String, snapshot: SnapshotRecord, request: UInt32, log: PhaseLog,
    distribution: Distribution, described: @escaping @Sendable () async throws -> Void
  ) async -> Elsewhere {
    var result = Elsewhere()
    do {
      let begin = log.elapsedMicroseconds
      try await deliver(snapshot, to: host, distribution: distribution, described: described)
      let sent = log.elapsedMicroseconds
      result.distributed = begin...sent
      var message = Snowfork_V1_ActivateRequest()
      message.home = await cluster.host
      message.ticket = slots[0].ticket ?? ""
      message.snapshot = snapshot.id
      message.cloneRequest = request
      message.slots = slots.map { (guests[$0.name]?.record ?? $0).slotSpec }
      let request = message
      let patience = Duration.seconds(10 + slots.count)
      result.activated = try await cluster.insist(on: host, timeout: patience) { connection, options in
        try await connection.peer.activate(request, options: options) { response in
          var last: UInt64 = 0
          for try await reply in response.messages {
            last = max(last, sent + reply.activatedUs)
            await self.activated(reply, at: log.elapsedMicroseconds)
          }
          return last
        }
      }
    } catch {
      let reason = Self.explain(error, host: host).message
      for slot in slots where guests[slot.name]?.record.state == .activating {
        await endClone(slot.name, .lost, reason: reason)
      }
    }
    for slot in slots where guests[slot.name]?.record.state == .activating {
      await endClone(slot.name, .lost, reason: "host \(host) said nothing of it")
    }
    return result
  }

  private func activated(_ reply: Snowfork_V1_ActivateReply, at microseconds: UInt64) async {
    guard guests[reply.name]?.record.state == .activating else { return }
    guard reply.state == "running" else {
      await endClone(reply.name, .lost, reason: reply.reason)
      return
    }
    guests[reply.name]?.record.state = .running
    guests[reply.name]?.record.activateMicroseconds = Int64(reply.activateUs)
    guests[reply.name]?.record.readyMicroseconds = Int64(microseconds)
  }

  // MARK: ends

  /// Ends a clone or slot of ours on another host. If that does not answer, hello tells it later.
  func endElsewhere(_ name: String, on host: String) async {
    guard let record = guests[name]?.record else { return }
    await end([name], of: record.ticket ?? "", on: host, reason: record.reason ?? "ended by its home")
  }

  func end(_ names: [String], of ticket: String, on host: String, reason: String) async {
    guard let connection = try? await cluster.reach(host) else { return }
    let home = await cluster.host
    _ = try? await connection.peer.endClones(
      .with {
        $0.home = home
        $0.ticket = ticket
        $0.names = names
        $0.reason = reason
      }, options: .within(.seconds(15)))
  }

  /// A clone of ours has ended on its host.
  func ended(_ end: Snowfork_V1_CloneEnd, on host: String) async {
    guard let record = guests[end.name]?.record, record.host == host, record.ticket == end.ticket else {
      return
    }
    let status = end.status
    if let how = ExitRecord.How(rawValue: status.how) {
      await note(
        exit: ExitRecord(
          ticket: end.ticket, vmid: Int(status.vmid), how: how, status: Int(status.status),
          result: Array(status.result), reason: status.reason))
    }
    guard end.machineEnded, !record.state.isOver else { return }
    guests[end.name]?.record.touchedBytes = Int64(end.touchedBytes)
    guests[end.name]?.record.privateBytes = Int64(end.privateBytes)
    await endClone(end.name, ExitRecord.How(rawValue: status.how) ?? .lost, reason: status.reason)
  }
}

extension VMRecord {
  var slotSpec: Snowfork_V1_SlotSpec {
    .with {
      $0.name = name
      $0.vmid = UInt32(vmid)
      $0.processes = UInt32(processes)
      $0.number = UInt32(network?.number ?? 0)
    }
  }
}

extension Family {
  var wire: Snowfork_V1_FamilyNetwork {
    .with {
      $0.id = id
      $0.parent = parent
      $0.home = home
      $0.vni = vni
      $0.subnet = subnet
      $0.allowed = allowed ?? []
      $0.bytesPerSecond = bytesPerSecond ?? 0
    }
  }

  init(_ wire: Snowfork_V1_FamilyNetwork) {
    self.init(
      id: wire.id, parent: wire.parent, home: wire.home, vni: wire.vni, subnet: wire.subnet,
      allowed: wire.allowed.isEmpty ? nil : wire.allowed,
      bytesPerSecond: wire.bytesPerSecond == 0 ? nil : wire.bytesPerSecond)
  }
}
