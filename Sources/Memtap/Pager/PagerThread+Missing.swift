import GuestMemory
import LinuxSystem

/// A clone touches a page that is not in its snapshot's cache file.
extension PagerThread {
  /// `start`: when its message was read, in monotonic nanoseconds. The time of a fault ends with the wake.
  /// `isAwaited`: it waited for the page to come from another host, and its neighbours have been asked for.
  func serveMissing(
    _ page: PageIndex, of region: Region, since start: UInt64, isAwaited: Bool = false
  ) {
    guard let snapshot = region.base else {
      doom(region, "a page of its own memory file was reported missing")
      return
    }
    let isFree = snapshot.isFree(page)
    let isFetched = !isFree && snapshot.states.isUnresolved(page)
    if isFetched {
      arrival = .touched
      do throws(PageTrouble) { try resolve(page..<page + 1, of: snapshot) } catch {
        if case let .pending(holder) = error, let remote = holder.remote {
          remote.await(page, for: region, since: start)
          askAhead(
            ahead(of: page, in: snapshot, window: tuning.remoteWindow),
            of: snapshot)
        } else {
          fail(page, of: region, error)
        }
        return
      }
      recordDemand(page, of: snapshot)
      region.counters.pagesFetched += 1
      snapshot.counters.pagesFetched += 1
    }
    if isFree || snapshot.states[page] == .zero {
      mapZeros(around: page, of: region, in: snapshot)
    } else {
      check(region.userfaultfd!.wake(address: region.address(of: page), length: UInt64(Page.bytes)), region)
    }
    let time = monotonicNanoseconds() - start
    region.counters.faults += 1
    region.counters.faultTime.record(nanoseconds: time)
    snapshot.counters.faults += 1
    snapshot.counters.faultTime.record(nanoseconds: time)
    snapshot.noteProgress(at: start + time)
    if isFetched, !isAwaited { prefetch(around: page, into: snapshot, for: region) }
  }

  private func ahead(of page: PageIndex, in snapshot: Snapshot, window: Int) -> PageRange {
    snapshot.readAhead.pages(at: page, window: window, end: snapshot.pageCount)
  }

  /// Brings in what is around and ahead of a page that was asked for, once that one has been delivered. Who waits for one of these
  /// pages has a message of its own under way.
  private func prefetch(around page: PageIndex, into snapshot: Snapshot, for region: Region) {
    let window = ahead(of: page, in: snapshot, window: tuning.fetchWindow)
    for page in window { recordDemand(page, of: snapshot) }
    let before = snapshot.resolvedCount
    arrival = .prefetched
    do throws(PageTrouble) { try resolve(window, of: snapshot) } catch {
      // A neighbour that can not be had will be asked for if it is needed.
      if case .pending = error { askAhead(window, of: snapshot) }
    }
    region.counters.pagesPrefetched += UInt64(snapshot.resolvedCount - before)
    snapshot.counters.pagesPrefetched += UInt64(snapshot.resolvedCount - before)
  }

  /// Maps zeros at `page` and at the zero pages beside it. They are private to the clone at once, as zeros cost nothing.
  private func mapZeros(around page: PageIndex, of region: Region, in snapshot: Snapshot) {
    var run = zeroRun(around: page, of: region, in: snapshot)
    var next = run.lowerBound
    while next < run.upperBound {
      let (answer, done) = region.userfaultfd!.mapZero(
        address: region.address(of: next), length: (next..<run.upperBound).byteCount)
      next += Int(done) / Page.bytes
      if answer == .done {
        // In memory of its own nothing marks a page that is not there: between arm and commit it is recorded here.
        region.arming?.lifted.insert(contentsOf: run)
        break
      }
      if answer == .again { continue }
      if answer == .notRegistered, run.count > 1 {
        // It reaches into memory of the clone's own, which is another mapping.
        run = page..<page + 1
        next = page
        continue
      }
      guard answer == .exists else {
        check(answer, region)
        return
      }
      // A marker of a write-protection stands there, or the page has been mapped by another thread's fault.
      if next == page { replaceMarker(at: page, of: region) }
      check(region.userfaultfd!.wake(address: region.address(of: next), length: UInt64(Page.bytes)), region)
      next += 1
    }
    region.counters.pagesZero += UInt64(run.count)
    snapshot.counters.pagesZero += UInt64(run.count)
  }

  private func zeroRun(around page: PageIndex, of region: Region, in snapshot: Snapshot) -> PageRange {
    // With protections in force every page has a marker, that is taken away only for a page that is asked for.
    if region.arming != nil || !region.snapshots.isEmpty { return page..<page + 1 }
    let window = PageRange.window(around: page, size: tuning.zeroWindow, end: snapshot.pageCount)
    var first = page
    while first > window.lowerBound, snapshot.states[first - 1] == .zero { first -= 1 }
    var end = page + 1
    while end < window.upperBound, snapshot.states[end] == .zero { end += 1 }
    return first..<end
  }

  /// The page is missing, so it is not private and no snapshot of this clone needs it: lift, then map. Between arm and
  /// commit it then counts as private, which it is: it maps the kernel's page of zeros.
  private func replaceMarker(at page: PageIndex, of region: Region) {
    // Private after all: it is mapped.
    if let newest = region.newest, newest.states[page] == .atOrigin { return }
    let address = region.address(of: page)
    _ = region.userfaultfd!.lift(address: address, length: UInt64(Page.bytes))  // judged by what follows
    let answer = region.userfaultfd!.mapZero(address: address, length: UInt64(Page.bytes)).answer
    check(answer, region)
    if answer == .done || answer == .exists { region.arming?.lifted.insert(page) }
  }

  private func fail(_ page: PageIndex, of region: Region, _ trouble: PageTrouble) {
    switch trouble {
    case .noMemory: doom(region, "no memory is left for the page cache of its snapshot")
    case .originGone, .pending:
      let snapshot = region.base!
      doom(
        region,
        snapshot.lostReason
          ?? "its origin \(snapshot.originName) has ended and \(snapshot.unsavedCount) pages were not fetched"
      )
    case let .failed(error): doom(region, "page \(page) could not be read: \(error)")
    }
  }

  /// The kernel's answers that need no other act than this.
  func check(_ answer: UserfaultAnswer, _ region: Region) {
    switch answer {
    case .done, .exists, .again: break
    case .processGone: abandon(region)  // its end is reported by the shim's socket
    case .notRegistered: doom(region, "its RAM is not registered for faults any more")
    case let .refused(code):
      doom(region, "the kernel refused to resolve a fault: \(SystemError("userfaultfd", errno: code))")
    }
  }
}

extension Range where Bound == PageIndex {
  var byteCount: UInt64 { UInt64(count) * UInt64(Page.bytes) }
}
