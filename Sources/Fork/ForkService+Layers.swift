import CloneDisk
import Foundation
import Hypervisor
import Wire

/// The layers of disks on this host as a whole: who needs them, which become one, which go.
extension ForkService {
  // MARK: the daemon's coming and the storage daemon's going

  /// Exports of VMs that live go on, by the storage daemon that serves them or another.
  func adoptDisks() async {
    let exports = guests.values.map(\.record).filter { $0.host == nil && $0.state != .ended }
      .flatMap { $0.disks ?? [] }.compactMap(\.exported)
    do { try await locateLayers(of: exports) } catch { log.error("a VM can not read its disk: \(error)") }
    do {
      let disks = disks
      try await workers.run { try disks.daemon.adopt(exports) }
      if let own = await cluster.own, !disks.store.served.isEmpty {
        let port = configuration.diskPort
        try await workers.run { try disks.server.serve([], address: own.address, port: port) }
      }
    } catch {
      log.error("VMs can not read their disks: \(error)")
    }
  }

  /// Replaces a storage daemon that has died, and takes away what nobody needs, as long as this daemon lives.
  func tendDisks() async {
    let disks = disks
    var told = ""
    for round in 0... {
      do {
        try await Task.sleep(for: .milliseconds(500))
        try await workers.run {
          try disks.daemon.replaceIfGone()
          try disks.server.replaceIfGone()
        }
        try await tendRoom()
        told = ""
      } catch is CancellationError {
        return
      } catch {
        // It is tried again and again.
        if "\(error)" != told { log.error("VMs can not read their disks: \(error)") }
        told = "\(error)"
      }
      if round.isMultiple(of: 10) { await sweepLayers() }
    }
  }

  /// Merges layers as long as this daemon lives: what is under way at its end is called off.
  func tendLayers() async {
    await withTaskCancellationHandler {
      while !Task.isCancelled {
        try? await Task.sleep(for: .milliseconds(500))
        await mergeLayers()
      }
    } onCancel: {
      Task { await callOffMerges() }
    }
  }

  private func callOffMerges() async {
    for name in merging { _ = try? await withHypervisor { $0.stopMerging(name) } }
  }

  private func tendRoom() async throws {
    let disks = disks
    switch try await workers.run({ try disks.daemon.tend(freeBytes: disks.store.freeBytes) }) {
    case false?:
      log.warning(
        "there is no room in \(disks.store.directory): what clones read from other hosts is fetched each time. Free some."
      )
    case true?: log.notice("there is room in \(disks.store.directory) again")
    case nil: break
    }
  }

  /// Of a VM its own files, of a snapshot its layers; of a ticket those of its clones here, and what came for them.
  func diskStatistics(of stats: Snowfork_V1_Stats) -> Snowfork_V1_DiskStats {
    let vms =
      stats.kind == "ticket" ? machines(of: stats.name) : [guests[stats.name]?.record].compactMap(\.self)
    let known = vms.filter { $0.host == nil }.flatMap { $0.disks ?? [] }
    let points = snapshots[stats.name]?.disks ?? []
    let own = Set(known.flatMap { [$0.active] + $0.frozen.map(\.id) })
    let below = Set(known.flatMap { $0.base.map(\.id) } + points.flatMap { $0.layers.map(\.id) })
    let store = disks.store
    return .with {
      $0.layers = UInt32(own.count + below.count)
      $0.bytes = own.union(points.isEmpty ? [] : below).reduce(0) { $0 + store.layerBytes($1) }
      $0.fetchedBytes = below.reduce(0) { $0 + store.cachedBytes($1) }
    }
  }

  /// Layers of that host which VMs and snapshots here are made of.
  func layersNeeded(of host: String) -> Set<String> {
    let points = snapshots.values.flatMap { $0.disks ?? [] }.flatMap(\.layers)
    let own = guests.values.filter(\.hasDisksHere).flatMap { $0.record.disks ?? [] }
      .flatMap { $0.frozen + $0.base }
    return Set((points + own).filter { $0.host == host }.map(\.id))
  }

  /// The daemon ends. Without VMs and snapshots nothing of disks is left.
  func closeDisks() async {
    guard !guests.values.contains(where: { $0.record.state != .ended && $0.record.host == nil }),
      snapshots.isEmpty
    else { return }
    // Clones that others have made of clones of ours may need what nothing here does.
    func isNeededElsewhere() -> Bool { layersWanted.values.contains { !$0.ids.isEmpty } }
    if isNeededElsewhere() { await cluster.greetOnce(within: .seconds(1)) }
    guard !isNeededElsewhere() else { return }
    let disks = disks
    _ = try? await workers.run {
      disks.daemon.stop()
      disks.server.stop()
      disks.store.removeAll(but: [], unneededFor: 0)
    }
  }

  /// Files and nodes that nobody refers to, here or on another host, go. What other hosts need they say with each hello. A
  /// layer that was served goes, or is merged into, when for 10 s no host has needed it while all were heard: one that is
  /// silent may have made clones of it that go on reading when it is back. A host can come to need a layer only from one that
  /// does, so all of them saying no twice in a row is the end of it.
  func sweepLayers() async {
    let open = layersRead
    let own = guests.values.filter(\.hasDisksHere).flatMap { $0.record.disks ?? [] }
    var needed = open.union(own.flatMap(\.layerIDs))
    let others = await cluster.others.map(\.name)
    layersWanted = layersWanted.filter { others.contains($0.key) }
    for host in others { needed.formUnion(layersWanted[host]?.ids ?? []) }
    let isKnown = others.allSatisfy { host in
      layersWanted[host].map { ContinuousClock.now - $0.at < .seconds(5) } ?? false
    }
    let (disks, keep) = (disks, needed)
    _ = try? await workers.run {
      disks.daemon.close(allBut: open)
      disks.store.removeAll(
        but: isKnown ? keep : keep.union(disks.store.served), unneededFor: 10)
      if disks.store.served.isEmpty { disks.server.stop() }
    }
  }

  // MARK: merge

  /// Layers of a VM that nobody else has become one, so that a VM that is forked again and again has not ever more.
  func mergeLayers() async {
    for (name, guest) in guests where guest.record.host == nil && guest.record.state == .running {
      for (index, disk) in (guest.record.disks ?? []).enumerated() where disk.frozen.count > 1 {
        while !Task.isCancelled, await mergeLayers(of: name, disk: index) {}
      }
    }
  }

  /// False: there is nothing more to merge, or not now.
  private func mergeLayers(of name: String, disk index: Int) async -> Bool {
    if let failed = mergeFailures[name], ContinuousClock.now - failed < .seconds(60) { return false }
    guard let disk = guests[name]?.record.disks?[index], mergeable(disk, of: name) != nil, turns.take(name)
    else {
      return false
    }
    let isMerged = await mergeInTurn(name, disk: index)
    turns.leave(name)
    // Those of which this VM is the parent were left alone meanwhile.
    await removeUnusedSnapshots()
    return isMerged
  }

  /// Two neighbours that nobody else reads; from below, where the oldest are.
  private func mergeable(_ disk: VMDisk, of name: String) -> (upper: String, lower: String)? {
    let shared = layersShared(besides: name)
    for lower in disk.frozen.indices.dropFirst().reversed() {
      let pair = (upper: disk.frozen[lower - 1].id, lower: disk.frozen[lower].id)
      if !shared.contains(pair.upper), !shared.contains(pair.lower) { return pair }
    }
    return nil
  }

  private func mergeInTurn(_ name: String, disk index: Int) async -> Bool {
    guard let disk = guests[name]?.record.disks?[index], let pair = mergeable(disk, of: name) else {
      return false
    }
    let (disks, open) = (disks, layersRead)
    let (upper, lower) = (disks.store.layerPath(pair.upper), disks.store.layerPath(pair.lower))
    merging.insert(name)
    defer { merging.remove(name) }
    do {
      let isMerged = try await withHypervisor {
        disks.daemon.close(allBut: open)
        return try $0.merge(name, disk: index, upper: upper, lower: lower)
      }
      guard isMerged else { return false }
      guests[name]?.record.disks?[index].frozen.removeAll { $0.id == pair.upper }
      await save(name)
      disks.store.remove(pair.upper)
      return true
    } catch {
      log.error("cannot merge layers of \(name): \(error)")
      mergeFailures[name] = .now
      return false
    }
  }

  /// Layers that the storage daemon reads, or may be asked to.
  var layersRead: Set<String> {
    let points = snapshots.values.flatMap { $0.disks ?? [] }.flatMap(\.layers)
    let own = guests.values.filter(\.hasDisksHere).flatMap { $0.record.disks ?? [] }.flatMap(\.base)
    return Set((points + own).map(\.id))
  }

  /// Layers that clones, snapshots, checkpoints or other hosts read.
  func layersShared(besides name: String) -> Set<String> {
    let points = snapshots.values.flatMap { $0.disks ?? [] }.flatMap(\.layers).map(\.id)
    let others = guests.values.filter { $0.record.name != name && $0.hasDisksHere }
      .flatMap { $0.record.disks ?? [] }.flatMap(\.layerIDs)
    return Set(points + others).union(layersWanted.values.flatMap(\.ids)).union(disks.store.served)
      .union(layersInReplication)
  }
}

extension ForkService.Guest {
  /// An ended clone keeps its record until it is joined, but not its disks.
  fileprivate var hasDisksHere: Bool { record.host == nil && record.state != .ended }
}
