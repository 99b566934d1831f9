import CloneDisk
import CloneNetwork
import Foundation
import Hypervisor
import LinuxSystem
import Memtap

/// A standby becomes a VM: as a clone of a kept snapshot does, but that it is the device VM, and no ticket's clone.
extension ForkService {
  /// Runs the standby in the place of its VM, or with `newName` beside it. On return its agent has answered. On failure
  /// the standby is as it was.
  func activateStandby(of name: String, as newName: String) async throws -> VMRecord {
    let what = "cannot activate the standby of \(name)"
    guard let found = standby(of: name) else {
      throw ForkError(.notFound, "\(what): there is none on this host. See sfctl replica ls.")
    }
    // What has just been ended may still be going.
    for _ in 0..<25 {
      guard let now = standbys[found.replica], !now.queue.isEmpty || snapshots[now.snapshot] != nil else {
        break
      }
      try await Task.sleep(for: .milliseconds(200))
    }
    let turn = Self.standbyKey(found.replica)
    await takeTurn(turn)
    defer { turns.leave(turn) }
    try? await applyQueue(found.replica)
    let standby = try await confirmedStandby(found.replica, what)
    guard standby.queue.isEmpty, snapshots[standby.snapshot] == nil else {
      throw ForkError(
        .refused, "\(what): clones of it run, or forks to this host that began with it. End those first.")
    }
    let target = newName.isEmpty ? name : newName
    try checkName(target)
    if newName.isEmpty, await deviceRuns(name, on: standby.home) {
      throw ForkError(
        .refused,
        "\(what): \(name) runs on host \(standby.home). End it first, or give the standby a name of its own with --as."
      )
    }
    guard guests[target]?.record.state ?? .ended == .ended, hypervisor.isFree(target) else {
      throw ForkError(.exists, "\(what): a VM named \(target) is on this host. Choose a name with --as.")
    }
    let (machine, state) = try machineAndState(of: standby, what)
    guard machine.compatibility == hypervisor.compatibility else {
      throw ForkError(
        .failed, "\(what): it was made by \(machine.compatibility), and here is \(hypervisor.compatibility).")
    }
    let available = HostMemory.read().available
    if EmbeddedResourceManager.reservation(memoryBytes: UInt64(machine.memoryBytes)) > available {
      throw ForkError(
        .refused, "\(what): host \(configuration.hostName) has \(byteText(available)) free. End a VM first.")
    }
    let disks = try await makeDisks(of: standby, machine, what: what)
    let record = try await makeRecord(target, machine, standby, disks: disks, isNew: !newName.isEmpty)
    do {
      return try await run(record, standby, machine, deviceState: state)
    } catch {
      await discard(target)
      await removeLayers(disks?.map { DiskPoint(virtualBytes: $0.virtualBytes, layers: $0.base) })
      standbys[standby.replica] = standby
      await saveStandby(standby.replica)
      throw ForkError.wrap(what, error)
    }
  }

  /// What its checkpoint says of the VM, and the device state.
  func machineAndState(
    of standby: StandbyRecord, _ what: String
  ) throws(ForkError) -> (ReplicaMachine, [UInt8]) {
    let directory = configuration.standbyDirectory(standby.replica)
    let files = FileManager.default
    guard let data = files.contents(atPath: Configuration.machineFile(directory, standby.sequence)),
      let machine = try? JSONDecoder().decode(ReplicaMachine.self, from: data),
      let state = files.contents(atPath: Configuration.stateFile(directory, standby.sequence))
    else {
      throw ForkError(
        .failed, "\(what): files of checkpoint \(standby.sequence) are missing in \(directory).")
    }
    return (machine, Array(state))
  }

  /// Whether the VM answers for itself on its host. A host that can not be asked has lost it.
  private func deviceRuns(_ name: String, on home: String) async -> Bool {
    if await home == cluster.host { return isAlive(name) }
    guard let connection = try? await cluster.reach(home) else { return false }
    let vms = try? await connection.snowfork.listVMs(
      .with { $0.localOnly = true }, options: .within(.seconds(5))
    ).vms
    return vms?.contains { $0.name == name } ?? false
  }

  private func makeRecord(
    _ target: String, _ machine: ReplicaMachine, _ standby: StandbyRecord, disks: [VMDisk]?, isNew: Bool
  ) async throws -> VMRecord {
    let record = VMRecord(
      name: target, uuid: UUID().uuidString.lowercased(), role: .slot, state: .starting, vmid: 0,
      processes: 1, snapshot: standby.snapshot, image: machine.image, memoryBytes: machine.memoryBytes,
      vcpus: machine.vcpus, commandLine: machine.commandLine,
      generationID: UUID().uuidString.lowercased(), shimToken: Self.randomHex(32),
      epoch: Int64.random(in: 1...Int64.max), cpuLimitPercent: machine.cpuLimitPercent,
      createdUnix: Self.unixNow(), disks: disks,
      network: await card(of: machine, for: target, isNew: isNew),
      traits: machine.traits)
    guests[target] = Guest(record: record)
    standbys[standby.replica]?.state = .activating
    await save(target)
    await saveStandby(standby.replica)
    return record
  }

  /// The VM's own, whose addresses are given here from now on. Beside the VM: the same address in a network of its own.
  func card(of machine: ReplicaMachine, for target: String, isNew: Bool) async -> NetworkCard? {
    guard var card = machine.network, let plan = card.family.plan else { return nil }
    card.family.home = await cluster.host
    if isNew {
      card.family.id = "\(target)-\(Self.randomHex(4))"
      card.family.parent = target
      card.family.vni = .random(in: 1...0xFF_FFFF)
      card.forwards = []
    }
    if familyNumbers[card.family.id] == nil {
      var numbers = FamilyNumbers(card.family, plan)
      if !isNew, let next = machine.nextNumber { numbers.next = max(numbers.next, next) }
      familyNumbers[card.family.id] = numbers
      let made = numbers
      await persist("the addresses of \(target)") { try await self.store.save(made) }
    }
    return card
  }

  private func run(
    _ record: VMRecord, _ standby: StandbyRecord, _ machine: ReplicaMachine, deviceState bytes: [UInt8]
  ) async throws -> VMRecord {
    let (name, id) = (record.name, standby.snapshot)
    let begin = monotonicMicroseconds()
    let deviceState = try AnonymousFile.create(name: "device-state", holding: bytes)
    try await launch(record, what: "cannot start \(name)")
    let session = record.traits.isAgentless ? nil : try await connect(name)
    let avoids = !record.traits.fetchesAll
    try await memtap.run { try $0.activate(vm: name, snapshot: id, avoids: avoids) }
    let openNetwork = try opening(of: name)
    _ = try await withHypervisor {
      try openNetwork?()
      return try $0.activate(name, deviceState: deviceState.raw)
    }
    guests[name]?.record.activateMicroseconds = Int64(monotonicMicroseconds() - begin)
    var snapshot = SnapshotRecord(
      id: id, parent: standby.name, kept: false, image: record.image, memoryBytes: record.memoryBytes,
      vcpus: record.vcpus, commandLine: record.commandLine, descriptorBytes: 0, pauseMicroseconds: 0,
      createdUnix: standby.checkpointUnix, checkpointRequest: 0)
    snapshot.network = record.network?.family
    snapshot.traits = record.traits
    if let session {
      guests[name]?.record.role = .parent
      guard let now = guests[name]?.record else { throw CancellationError() }
      _ = try await session.giveIdentity(
        identity(of: now, snapshot: snapshot, request: 0), while: isFetching(name))
    }
    guard guests[name]?.record.state == .starting else {
      throw ForkError(.failed, "\(name) ended while it was started")
    }
    guests[name]?.record.role = .parent
    guests[name]?.record.state = .running
    guests[name]?.record.readyMicroseconds = Int64(monotonicMicroseconds() - begin)
    snapshots[id] = snapshot
    standbys[standby.replica]?.snapshot = ""
    standbys[standby.replica]?.state = .activated
    await saveActivated(name, snapshot, standby)
    await release(id)
    if let session, record.network != nil {
      do { try await tellNetwork(name, session) } catch {
        log.error("\(name) was not told the names of its family: \(error)")
      }
    }
    let next =
      name == standby.name ? "; if host \(standby.home) was only cut off, it is told when it answers" : ""
    log.info("\(name) runs from checkpoint \(standby.sequence) of \(standby.name)\(next)")
    return guests[name]?.record ?? record
  }

  /// In one step, so that a successor finds the VM or the standby, not both.
  private func saveActivated(_ name: String, _ snapshot: SnapshotRecord, _ standby: StandbyRecord) async {
    guard let vm = guests[name]?.record, let now = standbys[standby.replica] else { return }
    await persist("VM \(name)") { try await self.store.save(vm, snapshot, now) }
    // Beside its VM it is nobody's successor: the next checkpoint, if one comes, makes a new standby.
    if name != standby.name { await dropStandby(standby.replica) }
    configuration.removeReplicaDirectory(configuration.standbyDirectory(standby.replica))
  }

  /// A VM that took the place of another has ended: its old home may make a standby again.
  func forgetActivated(_ name: String) async {
    for (replica, record) in standbys where record.state == .activated && record.name == name {
      await dropStandby(replica)
    }
  }
}
