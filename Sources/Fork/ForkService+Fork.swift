import Foundation
import GuestKernel
import GuestWire
import Hypervisor
import LinuxSystem
import Memtap

extension ForkService {
  /// What a fork came to.
  struct Outcome: Sendable {
    var ticket: TicketRecord
    var snapshot: SnapshotRecord
    var clones: [VMRecord]
    var forkMicroseconds: UInt64
    var log: PhaseLog
  }

  /// Forks the VM that the ticket was asked for. On return every clone that could be started has answered as itself;
  /// one that could not is recorded as lost. On failure before the fork point nothing has happened but that the
  /// ticket may be used again; the parent runs on in every case.
  ///
  /// `forked` is called when the fork point stands and the parent runs on: then a parent's sf_clone returns.
  func fork(
    ticket id: String, cloneRequest: UInt32, dropsCache: Bool = false,
    distribution: Distribution = .init(), report: Report,
    forked: () -> Void = {}
  ) async throws -> Outcome {
    let ticket = try await claim(id)
    var log = PhaseLog()
    let point: ForkPoint
    do {
      point = try await freezePoint(
        of: ticket.parent, id: "s-" + Self.randomHex(8), kept: false, checkpointRequest: 0,
        dropsCache: dropsCache, log: &log)
    } catch {
      // Whoever ended its clones meanwhile joins them; else it may be used again.
      tickets[id]?.record.state = machines(of: id).allSatisfy(\.state.isOver) ? .cloned : .granted
      await saveTicket(id)
      changed(id)
      throw ForkError.wrap("cannot fork \(ticket.parent)", error)
    }
    tickets[id]?.record.snapshot = point.snapshot.id
    forked()
    // Clones on this host need not wait for what others would be made of: its device state is at hand.
    let times = log
    let describing = Task { try await describe(point, times) }
    var outcome = try await cloneOnto(
      point.snapshot, deviceState: point.deviceState, ticket: id, request: cloneRequest, log: times,
      distribution: distribution, described: { _ = try await describing.value }, report: report)
    do {
      outcome.log.insert(.descriptor, try await describing.value)
      outcome.snapshot.descriptorBytes =
        snapshots[point.snapshot.id]?.descriptorBytes ?? outcome.snapshot.descriptorBytes
    } catch {
      self.log.error("the descriptor of \(point.snapshot.id) was not written: \(error)")
    }
    remember(outcome)
    return outcome
  }

  /// Takes a granted ticket for cloning: only one can.
  func claim(_ id: String) async throws(ForkError) -> TicketRecord {
    guard let ticket = tickets[id]?.record else { throw unknownTicket(id) }
    guard ticket.state == .granted else {
      throw ForkError(.refused, "cannot clone with \(id): it has been used. Request another ticket.")
    }
    tickets[id]?.record.state = .cloning
    await saveTicket(id)
    return ticket
  }

  // MARK: arm → prepare → freeze → descriptor

  /// A VM's state at one instant, before it is written down.
  struct ForkPoint: Sendable {
    var snapshot: SnapshotRecord
    var deviceState: OwnedDescriptor
    var layout: SnapshotLayout
    /// Where its guest says what was free; nil: nothing was.
    var kernel: SurveyedKernel?
  }

  /// Makes a fork point of a running VM, which runs on when this returns. On failure it runs on as well, and nothing
  /// is left. Without `surveys` nothing is taken to be free, and there is no layout.
  func freezePoint(
    of name: String, id: String, kept: Bool, checkpointRequest: UInt32, dropsCache: Bool = false,
    surveys: Bool = true, log: inout PhaseLog
  ) async throws -> ForkPoint {
    // A merge gives its turn back for a fork. No await before the turn is waited for: it might be given back meanwhile.
    if merging.contains(name) { Task { try await withHypervisor { $0.stopMerging(name) } } }
    await takeTurn(name)
    defer { turns.leave(name) }
    let parent = try guest(name).record
    let session = parent.traits.isAgentless ? nil : try session(name)
    if session == nil, dropsCache {
      throw ForkError(
        .refused, "cannot drop the page cache of \(name): no agent answers in it. Fork without.")
    }
    let deviceState = try AnonymousFile.create(name: "device-state")
    let memtapClient = memtap.client

    let disks = try await prepareTurns(of: name)

    do {
      log.begin(.arm)
      async let prepared = session?.prepare(dropsCache: dropsCache)
      try await memtap.run { try $0.arm(vm: name) }
      log.end()
      log.begin(.prepare)
      let note = try await prepared
      log.end()
      log.begin(.freeze)
      let times = try await withHypervisor { hypervisor in
        try hypervisor.freeze(name, deviceState: deviceState.raw, disks: disks) {
          try memtapClient.commit(vm: name, snapshot: id)
        }
      }
      log.end()
      session?.resume(epoch: UInt64(parent.epoch))
      log.begin(.survey)
      let kernel = kernel(of: parent, note: note)
      let layout =
        surveys
        ? try await survey(id, of: parent, kernel)
        : SnapshotLayout(ramBytes: UInt64(parent.memoryBytes), existing: [])
      log.end()
      let record = SnapshotRecord(
        id: id, parent: name, kept: kept, image: parent.image, memoryBytes: parent.memoryBytes,
        vcpus: parent.vcpus, commandLine: parent.commandLine, descriptorBytes: 0,
        pauseMicroseconds: Int64(times.pauseMicroseconds), createdUnix: Self.unixNow(),
        checkpointRequest: Int64(checkpointRequest), disks: await diskPoints(of: name),
        network: parent.network?.family, freePages: Int64(layout.freePages),
        freeUnknown: layout.freeUnknown.isEmpty ? nil : layout.freeUnknown, traits: parent.traits)
      snapshots[id] = record
      guests[name]?.forkPoints?.insert(id)
      return ForkPoint(
        snapshot: record, deviceState: try AnonymousFile.reopened(deviceState), layout: layout,
        kernel: kernel)
    } catch {
      session?.resume(epoch: UInt64(parent.epoch))
      try? await memtap.run { try $0.disarm(vm: name) }
      // They may have gone over to their new files all the same.
      try? await reconcileDisks(of: name)
      await forgetSnapshot(id)
      throw ForkError.wrap("cannot fork \(name)", error)
    }
  }

  /// What was free in the guest is known from here on. `note`: where its kernel describes its memory.
  private func survey(
    _ id: String, of parent: VMRecord, _ kernel: SurveyedKernel?
  ) async throws -> SnapshotLayout {
    var layout = try await memtap.run { try $0.survey(snapshot: id, kernel: kernel) }
    if parent.traits.fetchesAll { layout.freeUnknown = "it was started with --no-avoidance" }
    if parent.traits.isAgentless { layout.freeUnknown = "no agent answers in it" }
    return layout
  }

  private func kernel(of parent: VMRecord, note: KernelNotePlace?) -> SurveyedKernel? {
    let lowBytes = hypervisor.lowMemoryBytes(of: UInt64(parent.memoryBytes))
    return parent.traits.fetchesAll ? nil : note.map { SurveyedKernel(note: $0, lowBytes: lowBytes) }
  }

  // MARK: activate → ready

  /// Clones a snapshot into the ticket's slots.
  func cloneOnto(
    _ snapshot: SnapshotRecord, deviceState: OwnedDescriptor, ticket id: String, request: UInt32,
    log: PhaseLog, distribution: Distribution = .init(),
    described: @escaping @Sendable () async throws -> Void = {}, report: Report
  ) async throws -> Outcome {
    var log = log
    // Those that were ended since the ticket was taken stay so.
    let clones = machines(of: id).filter { !$0.state.isOver }
    let names = clones.map(\.name)
    for name in names {
      guests[name]?.record.snapshot = snapshot.id
      guests[name]?.record.state = .activating
      guests[name]?.record.role = .clone
    }
    log.begin(.activate)
    let begun = log
    async let elsewhere = cloneElsewhere(
      clones.filter { $0.host != nil }, snapshot: snapshot, request: request, log: begun,
      distribution: distribution, described: described)
    let lastHere = await activateHere(
      clones.filter { $0.host == nil }.map(\.name), snapshot: snapshot, deviceState: deviceState,
      request: request, log: begun, total: names.count, report: report)
    let there = await elsewhere
    let forkMicroseconds = log.elapsedMicroseconds
    log.endActivation(at: max(lastHere, there.activated))
    if let distributed = there.distributed { log.insert(.distribute, distributed) }
    // The clones first: with the ticket alone a successor would take them for slots.
    for name in names { await save(name) }
    tickets[id]?.record.state = .cloned
    await saveTicket(id)
    if !snapshot.kept, deliveries[snapshot.id] == nil { await release(snapshot.id) }
    changed(id)
    guard let ticket = tickets[id] else {
      throw ForkError(.failed, "cannot fork \(snapshot.parent): its ticket was ended meanwhile. Ask again.")
    }
    return Outcome(
      ticket: ticket.record, snapshot: snapshots[snapshot.id] ?? snapshot, clones: machines(of: id),
      forkMicroseconds: forkMicroseconds, log: log)
  }

  /// Brings slots of this host to life. Answers when the last one's virtual CPUs ran, microseconds since the call.
  func activateHere(
    _ names: [String], snapshot: SnapshotRecord, deviceState: OwnedDescriptor, request: UInt32,
    log: PhaseLog, total: Int, report: Report, ready: (String, UInt64) async -> Void = { _, _ in }
  ) async -> UInt64 {
    var done = 0
    return await withTaskGroup(of: (String, UInt64?).self) { group in
      var waiting = names[...]
      func addNext() {
        guard let name = waiting.popFirst() else { return }
        group.addTask {
          (
            name,
            await self.activate(
              name, snapshot: snapshot, deviceState: deviceState, request: request, log: log)
          )
        }
      }
      for _ in 0..<configuration.activationsAtOnce { addNext() }
      var last: UInt64 = 0
      for await (name, activated) in group {
        addNext()
        await ready(name, activated ?? 0)
        last = max(last, activated ?? 0)
        done += 1
        await report(
          Progress(phase: "ready", done: done, total: total, text: "activating clones"))
      }
      return last
    }
  }

  /// One slot becomes a clone: RAM onto the snapshot's page cache, device state, identity. Answers when its virtual
  /// CPUs ran, microseconds since the call; nil if it is lost.
  private func activate(
    _ name: String, snapshot: SnapshotRecord, deviceState: OwnedDescriptor, request: UInt32, log: PhaseLog
  ) async -> UInt64? {
    hold(name)
    defer { letGo(name) }
    do {
      guard let record = guests[name]?.record, record.state == .activating else {
        throw ForkError(.failed, "its slot had ended before the fork")
      }
      let session = guests[name]?.session
      if session == nil, !record.traits.isAgentless {
        throw ForkError(.failed, "the connection to its agent had ended before the fork")
      }
      let begin = monotonicMicroseconds()
      try await bindDisks(of: name, to: snapshot)
      let avoids = !record.traits.fetchesAll
      try await memtap.run { try $0.activate(vm: name, snapshot: snapshot.id, avoids: avoids) }
      let openNetwork = try opening(of: name)
      _ = try await withHypervisor {
        try openNetwork?()
        return try $0.activate(name, deviceState: deviceState.raw)
      }
      let activated = monotonicMicroseconds()
      let activatedAt = log.elapsedMicroseconds
      guests[name]?.record.activateMicroseconds = Int64(activated - begin)
      let agentMicroseconds = try await session?.giveIdentity(
        identity(of: record, snapshot: snapshot, request: request), while: isFetching(name))
      self.log.debug(
        "\(name) is ready",
        metadata: [
          "activate_us": "\(activated - begin)", "agent_us": "\(agentMicroseconds ?? 0)",
          "identity_us": "\(monotonicMicroseconds() - activated)",
        ])
      guard guests[name]?.record.state == .activating else { return activatedAt }
      guests[name]?.record.state = .running
      guests[name]?.record.readyMicroseconds = Int64(log.elapsedMicroseconds)
      return activatedAt
    } catch {
      let reason = (error as? GuestError).map { "it did not take its identity: \($0)" } ?? "\(error)"
      await endClone(name, .lost, reason: reason)
      return nil
    }
  }
}
