import Foundation

/// A ticket's slots: paused VMs that wait for a device state.
extension ForkService {
  /// `dev.1` for vmid 1 and so on; the next free numbers while an earlier ticket's clones hold those, or libvirt does.
  func reserveNames(
    source: CloneSource, ticket: String, count: Int, placements: [Placement], processes: Int
  ) async throws -> [String] {
    let here = await cluster.host
    let hosts = placements.flatMap { Array(repeating: $0.host, count: $0.count) }
    // Clones of a clone get their addresses from elsewhere, and meanwhile another ticket could take the names.
    let turn = "names of \(source.parent)"
    await takeTurn(turn)
    defer { turns.leave(turn) }
    let numbers = try freeNumbers(hosts.count, for: source)
    let cards = try await cards(for: source, names: numbers)
    guard tickets[ticket] != nil else {
      throw ForkError(.failed, "its ticket was ended meanwhile. Ask again.")
    }
    var names: [String] = []
    for (index, host) in hosts.enumerated() {
      let name = "\(source.parent).\(numbers[index])"
      let first = index * processes + 1
      guests[name] = Guest(
        record: VMRecord(
          name: name, uuid: UUID().uuidString.lowercased(), role: .slot, state: .starting, vmid: first,
          processes: min(processes, count - first + 1), ticket: ticket, image: source.image,
          memoryBytes: source.memoryBytes, vcpus: source.vcpus, commandLine: source.commandLine,
          generationID: UUID().uuidString.lowercased(), shimToken: Self.randomHex(32),
          epoch: Int64.random(in: 1...Int64.max), cpuLimitPercent: 0, createdUnix: Self.unixNow(),
          host: host == here ? nil : host, network: cards[index], traits: source.traits))
      names.append(name)
    }
    return names
  }

  /// vmids have no gaps, also when a slot failed to start.
  func renumber(_ names: [String], count: Int, processes: Int) {
    var next = 1
    for name in names {
      guests[name]?.record.vmid = next
      guests[name]?.record.processes = min(processes, count - next + 1)
      next += processes
    }
  }

  /// Starts the slots a few at a time; answers those that failed, with the reason.
  func startSlots(_ all: [String], report: Report) async -> [String: any Error] {
    async let elsewhere = startRemoteSlots(all)
    var failures: [String: any Error] = [:]
    let names = all.filter { guests[$0]?.record.host == nil }
    var queue = names[...]
    var done = 0
    await report(Progress(phase: "slots", done: 0, total: names.count, text: "starting slots"))
    await withTaskGroup(of: (String, (any Error)?).self) { group in
      func addNext() {
        guard let name = queue.popFirst() else { return }
        group.addTask { (name, await self.startSlot(name)) }
      }
      for _ in 0..<4 { addNext() }
      for await (name, error) in group {
        if let error { failures[name] = error }
        done += 1
        await report(Progress(phase: "slots", done: done, total: names.count, text: "starting slots"))
        addNext()
      }
    }
    failures.merge(await elsewhere) { first, _ in first }
    return failures
  }

  private static let endedMeanwhile = ForkError(.failed, "it was ended while it started. Ask again.")

  /// A slot is connected to before it is activated, or the guest's reads of its port return 0 in a loop.
  private func startSlot(_ name: String) async -> (any Error)? {
    hold(name)
    defer { letGo(name) }
    do {
      guard var record = guests[name]?.record, record.state == .starting else { throw Self.endedMeanwhile }
      if record.disks == nil {
        let sizes = record.ticket.flatMap { tickets[$0]?.diskBytes } ?? []
        record.disks = try await makeSlotDisks(sizes, of: name)
        guests[name]?.record.disks = record.disks
      }
      try await launch(record, what: "cannot start slot \(name)")
      if !record.traits.isAgentless { _ = try await connect(name) }
      guard guests[name]?.record.state == .starting else { throw Self.endedMeanwhile }
      guests[name]?.record.state = .warm
      await save(name)
      return nil
    } catch {
      return error
    }
  }
}
