import Glibc
import GuestMemory
import LinuxSystem

/// Slots become clones; snapshots are completed and dropped.
extension Pager {
  package func activate(vm: String, snapshot id: String, avoids: Bool) throws(MemtapError) {
    let (region, shim) = try connected(vm, "activate")
    let snapshot = try snapshot(id, "activate")
    do {
      try region.slow.withLock { _ in
        guard try join(region, to: snapshot) else { return }
        do { try map(region, on: snapshot, shim, avoids: avoids) } catch {
          leave(region, snapshot)
          throw error
        }
      }
    } catch let error as MemtapError {
      throw error
    } catch {
      throw MemtapError("activate", vm, error)
    }
  }

  /// The region becomes part of the snapshot's family. False: it is already.
  private func join(_ region: Region, to snapshot: Snapshot) throws(MemtapError) -> Bool {
    try snapshot.thread.attempt { () throws(MemtapError) -> Bool in
      func refuse(_ cause: String) -> MemtapError {
        MemtapError(.state, operation: "activate", subject: region.name, cause: cause)
      }
      if region.base === snapshot { return false }
      if region.base != nil || region.userfaultfd != nil { throw refuse("it is no slot any more") }
      if region.pageCount != snapshot.pageCount {
        throw refuse(
          "it has \(region.byteCount) bytes of RAM and snapshot \(snapshot.id) \(snapshot.ramBytes)")
      }
      if snapshot.isApplying { throw refuse("a checkpoint is being applied to standby \(snapshot.id)") }
      if snapshot.isDropped { throw refuse("snapshot \(snapshot.id) has been dropped") }
      if let reason = snapshot.lostReason { throw refuse("snapshot \(snapshot.id) is lost: \(reason)") }
      region.shared.withLock { $0.thread = snapshot.thread }
      region.base = snapshot
      snapshot.clones.append(region)
      if !snapshot.hasWorkingSet {
        snapshot.hasWorkingSet = true
        snapshot.thread.post { snapshot.thread.bringWorkingSet(into: snapshot) }
      }
      return true
    }
  }

  private func leave(_ region: Region, _ snapshot: Snapshot) {
    snapshot.thread.perform { [self] in
      snapshot.clones.removeAll { $0 === region }
      region.base = nil
      tidy(snapshot.thread)
    }
  }

  private func map(_ region: Region, on snapshot: Snapshot, _ shim: ShimChannel, avoids: Bool) throws {
    // First the record: a successor must not remove a snapshot that a VM is mapped on.
    try writeManifest(of: region, "activate")
    // Read-only, so that a QEMU that was taken over can not write into its siblings' memory.
    let cache = try snapshot.cache.reopened(O_RDONLY)
    let zeros = avoids ? snapshot.thread.perform { snapshot.longZeros } : []
    let userfaultfd = try shim.request(
      .mapCache(
        snapshot: snapshot.id, cache: cache.descriptor, avoidsOverwrites: avoids,
        zeros: zeros.map { UInt32($0.lowerBound)..<UInt32($0.upperBound) }))
    try snapshot.thread.perform {
      region.userfaultfd = userfaultfd
      region.ownZeros = zeros
      region.mode = .missing
      return Result { try snapshot.thread.serve(region) }
    }.get()
  }

  package func drop(snapshot id: String) throws(MemtapError) {
    guard let snapshot = directory.withLock({ $0.snapshots[id] }) else { return }
    snapshot.thread.perform { [self] in
      snapshot.isDropped = true
      if snapshot.isCheckpoint { snapshot.thread.absorb(snapshot) }
      tidy(snapshot.thread)
    }
  }

  package func isWhole(snapshot id: String) throws(MemtapError) -> Bool {
    let snapshot = try snapshot(id, "isWhole")
    return snapshot.thread.perform { snapshot.thread.isWhole(snapshot) }
  }

  /// In steps of 4 MiB, between which the family's faults are served.
  package func complete(snapshot id: String) throws(MemtapError) {
    let snapshot = try snapshot(id, "complete")
    try awaitTakeOver("complete", id)
    let step = 1024
    for first in stride(from: 0, to: snapshot.pageCount, by: step) {
      let range = first..<min(first + step, snapshot.pageCount)
      // Pages from another host come later: those ahead are asked for as well, and the step is made again.
      while try !complete(range, of: snapshot) { usleep(2000) }
    }
  }

  /// False: pages of the range, now asked for, are still to come from another host.
  private func complete(_ range: PageRange, of snapshot: Snapshot) throws(MemtapError) -> Bool {
    let id = snapshot.id
    return try snapshot.thread.attempt { () throws(MemtapError) -> Bool in
      do throws(PageTrouble) {
        try snapshot.thread.complete(range, of: snapshot)
        return true
      } catch {
        switch error {
        case let .pending(holder):
          if holder.remote?.takeRefusal() == true {
            throw MemtapError(
              .outOfMemory, operation: "complete", subject: id, cause: "no memory is left for its page cache")
          }
          let ahead = min(range.lowerBound + 4 * range.count, snapshot.pageCount)
          snapshot.thread.askAhead(range.lowerBound..<ahead, of: snapshot)
          return false
        case .noMemory:
          throw MemtapError(
            .outOfMemory, operation: "complete", subject: id, cause: "no memory is left for its page cache")
        case .originGone:
          throw MemtapError(
            .failed, operation: "complete", subject: id,
            cause: snapshot.lostReason ?? "its origin has ended")
        case let .failed(error): throw MemtapError("complete", id, error)
        }
      }
    }
  }
}

extension Region {
  /// On its family's thread.
  var statistics: MemtapStatistics.VMCounters {
    .init(
      vm: name, snapshot: base?.id, pagesTotal: UInt64(pageCount), faults: counters.faults,
      pagesFetched: counters.pagesFetched, pagesPrefetched: counters.pagesPrefetched,
      pagesZero: counters.pagesZero, pagesOverwritten: 0,
      preimagesSaved: counters.preimagesSaved, faultMicroseconds: counters.faultTime.summary,
      preimageMicroseconds: counters.preimageTime.summary)
  }
}

extension Snapshot {
  /// On its family's thread.
  var statistics: MemtapStatistics.SnapshotCounters {
    .init(
      snapshot: id, origin: origin?.name ?? originName, pagesTotal: UInt64(pageCount),
      pagesPresent: UInt64(presentCount), pagesFetched: counters.pagesFetched,
      pagesPrefetched: counters.pagesPrefetched, pagesZero: counters.pagesZero,
      preimagesSaved: counters.preimagesSaved, faults: counters.faults,
      faultMicroseconds: counters.faultTime.summary,
      vms: clones.map(\.name), lost: lostReason,
      unsaved: UInt64(unsavedCount), distribution: distribution)
  }
}
