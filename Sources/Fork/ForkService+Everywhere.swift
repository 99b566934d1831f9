import GRPCCore
import Memtap
import Wire

/// What is on all hosts, for one who asks here.
extension ForkService {
  private static let patience = CallOptions.within(.seconds(5))

  /// Asks each host that is up; one that does not answer is left out.
  func askOthers<T: Sendable>(
    _ body: @escaping @Sendable (PeerConnection) async throws -> T
  ) async -> [(host: String, answer: T)] {
    let peers = await cluster.peers
    return await withTaskGroup(of: (String, T)?.self) { group in
      for (name, peer) in peers where peer.isUp {
        guard let connection = try? await cluster.reach(name) else { continue }
        group.addTask { (try? await body(connection)).map { (name, $0) } }
      }
      var answers: [(host: String, answer: T)] = []
      for await answer in group { if let answer { answers.append((answer.0, answer.1)) } }
      return answers.sorted { $0.host.localizedStandardCompare($1.host) == .orderedAscending }
    }
  }

  /// Of a clone of ours whose host does not answer only that is known.
  func vmsElsewhere(all: Bool) async -> [Snowfork_V1_VM] {
    let told = await toldVMs(all: all)
    let names = Set(told.map(\.name))
    let silent = guests.values.map(\.record).filter {
      $0.host != nil && $0.state == .running && !names.contains($0.name)
    }
    return told
      + silent.sorted { $0.name.localizedStandardCompare($1.name) == .orderedAscending }.map { record in
        var vm = VMView(record: record, pid: 0, presentBytes: 0, privateBytes: 0).wire(host: "")
        vm.state = "unknown"
        vm.reason = "host \(vm.host) does not answer"
        return vm
      }
  }

  private func toldVMs(all: Bool) async -> [Snowfork_V1_VM] {
    await askOthers { connection in
      try await connection.snowfork.listVMs(
        .with {
          $0.all = all
          $0.localOnly = true
        }, options: Self.patience
      ).vms
    }.flatMap(\.answer)
  }

  /// The host of a VM that is not on this one; nil: it is here, or unknown, or a clone of a ticket of ours, which ends
  /// from here.
  func hostElsewhere(of name: String) async -> String? {
    if guests[name] != nil || tickets[name] != nil { return nil }
    return await vmsElsewhere(all: false).first { $0.name == name }?.host
  }

  /// The host that has the VM's agent; nil: this one.
  func agentHost(of name: String) async -> String? {
    if let record = guests[name]?.record { return record.host }
    return await hostElsewhere(of: name)
  }

  /// What needs the VM's own memory is done on its host.
  func requireHere(_ name: String, to action: String) async throws(ForkError) {
    guard let host = await agentHost(of: name) else { return }
    throw ForkError(.refused, "cannot \(action): it runs on host \(host). Run this command there.")
  }

  func hostInfos(version: String) async -> [Snowfork_V1_HostInfo] {
    var infos = [await hostInfo(version: version)]
    let peers = await cluster.peers
    for member in await cluster.others {
      var info = peers[member.name]?.info.host ?? .init()
      info.name = member.name
      info.address = "\(member.address):\(member.port)"
      info.state = peers[member.name]?.isUp == true ? "up" : "down"
      infos.append(info)
    }
    return infos.sorted { $0.name.localizedStandardCompare($1.name) == .orderedAscending }
  }

  // MARK: statistics

  func statisticsHere(of target: String) async throws -> [Snowfork_V1_Stats] {
    let host = await cluster.host
    return try await statistics(of: target).map { target in
      var stats = target.wire
      stats.host = host
      stats.disk = diskStatistics(of: stats)
      return stats
    }
  }

  /// Of a ticket or snapshot the sum over its hosts; of nothing, all there is on each.
  func statisticsEverywhere(of target: String) async throws -> [Snowfork_V1_Stats] {
    let elsewhere = await askOthers { connection in
      try await connection.snowfork.stats(.with { $0.localOnly = true }, options: Self.patience).stats
    }.flatMap(\.answer)
    if target.isEmpty { return try await statisticsHere(of: "") + elsewhere }
    if let record = tickets[target]?.record {
      let names = Set(machines(of: target).map(\.name))
      var sum = try await statisticsHere(of: target)[0]
      for stats in elsewhere where names.contains(stats.name) && stats.kind == "clone" { sum.add(stats) }
      for stats in elsewhere where stats.kind == "snapshot" && stats.name == record.snapshot {
        sum.bytesReceived += stats.bytesReceived
        sum.disk.fetchedBytes += stats.disk.fetchedBytes
      }
      return [sum]
    }
    if snapshots[target] != nil {
      var sum = try await statisticsHere(of: target)[0]
      for stats in elsewhere where stats.kind == "snapshot" && stats.name == target {
        sum.add(stats)
        sum.bytesReceived += stats.bytesReceived
      }
      return [sum]
    }
    if guests[target] != nil, guests[target]?.record.host == nil {
      return try await statisticsHere(of: target)
    }
    let found = elsewhere.filter { $0.name == target }
    return found.isEmpty ? try await statisticsHere(of: target) : found
  }

  // MARK: history

  func history(ticket id: String) async throws -> Snowfork_V1_TicketHistoryReply {
    guard let snapshot = tickets[id]?.record.snapshot ?? outcomes[id]?.snapshot.id else {
      throw unknownTicket(id)
    }
    guard snapshots[snapshot] != nil else {
      throw ForkError(
        .refused,
        "cannot read the history of \(id): its snapshot \(snapshot) is gone. Ask while its clones live.")
    }
    let host = await cluster.host
    var reply = Snowfork_V1_TicketHistoryReply()
    reply.ticket = id
    reply.snapshot = snapshot
    let own = try await memtap.run { try $0.history(snapshot: snapshot) }
    reply.pagesTotal = UInt64(own.pages.count)
    reply.hosts = [own.wire(host: host)]
    if tickets[id]?.record.home == nil {
      reply.hosts += await askOthers { connection in
        try await connection.snowfork.ticketHistory(.with { $0.ticket = id }, options: Self.patience).hosts
      }.flatMap(\.answer)
    }
    return reply
  }
}

extension SnapshotHistory {
  func wire(host: String) -> Snowfork_V1_HostHistory {
    .with {
      $0.host = host
      $0.pages = .init(pages)
      $0.samples = samples.map { sample in
        .with {
          $0.us = sample.microseconds
          $0.pages = sample.pagesPresent
          $0.bytes = sample.bytesReceived
          $0.faults = sample.faults
        }
      }
    }
  }
}

extension Snowfork_V1_Stats {
  /// Another host's part. Quantiles do not add up: the worst is shown.
  mutating func add(_ other: Snowfork_V1_Stats) {
    pagesTotal += other.pagesTotal
    pagesPresent += other.pagesPresent
    pagesFetched += other.pagesFetched
    pagesPrefetched += other.pagesPrefetched
    pagesAvoided += other.pagesAvoided
    pagesOverwritten += other.pagesOverwritten
    pagesShared += other.pagesShared
    pagesPushed += other.pagesPushed
    faults += other.faults
    faultUs.keepWorst(other.faultUs)
    remoteFaultUs.keepWorst(other.remoteFaultUs)
    disk.bytes += other.disk.bytes
    disk.fetchedBytes += kind == "snapshot" ? other.disk.fetchedBytes : 0
  }
}

extension Snowfork_V1_Quantiles {
  mutating func keepWorst(_ other: Snowfork_V1_Quantiles) {
    p50 = Swift.max(p50, other.p50)
    p99 = Swift.max(p99, other.p99)
    max = Swift.max(max, other.max)
  }
}
