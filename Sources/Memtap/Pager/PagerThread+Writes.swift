import GuestMemory
import LinuxSystem

/// An origin writes to a page that is protected for a snapshot: save the pre-image, then let it write.
extension PagerThread {
  func serveWrite(to page: PageIndex, of region: Region) {
    // Between arm and commit everything lifted is protected again by the commit: lift little. And of a clone only the
    // page itself is known to be present, which a page recorded as private has to be.
    let size = region.arming != nil && region.base != nil ? 1 : tuning.preimageWindow
    let window = PageRange.window(around: page, size: size, end: region.pageCount)
    arrival = .saved
    if let newest = region.newest, !newest.isLost {
      let before = newest.unsavedCount
      do throws(PageTrouble) {
        try savePreimages(of: window, with: page, in: newest)
      } catch {
        lose(newest, because: error)
      }
      region.counters.preimagesSaved += UInt64(before - newest.unsavedCount)
      newest.counters.preimagesSaved += UInt64(before - newest.unsavedCount)
    }
    let open = writable(around: page, within: window, of: region)
    region.arming?.lifted.insert(contentsOf: open)
    lift(open, of: region)
  }

  /// Saves what the snapshot lacks of the window. Throws if `page` itself could not be saved.
  private func savePreimages(
    of window: PageRange, with page: PageIndex, in snapshot: Snapshot
  ) throws(PageTrouble) {
    do throws(PageTrouble) {
      for run in unsavedRuns(of: window, in: snapshot) { try resolve(run, of: snapshot) }
    } catch  where snapshot.states[page] == .atOrigin {
      try resolve(page..<page + 1, of: snapshot)
    } catch {
      // A neighbour could not be saved: it stays protected.
    }
  }

  /// Runs of pages `atOrigin`; those `atBase` need no pre-image.
  private func unsavedRuns(of window: PageRange, in snapshot: Snapshot) -> UnsavedRuns {
    UnsavedRuns(states: snapshot.states, page: window.lowerBound, end: window.upperBound)
  }

  private struct UnsavedRuns: Sequence, IteratorProtocol {
    let states: PageStates
    var page: PageIndex
    let end: PageIndex
    mutating func next() -> PageRange? {
      while page < end, states[page] != .atOrigin { page += 1 }
      if page == end { return nil }
      let first = page
      while page < end, states[page] == .atOrigin { page += 1 }
      return first..<page
    }
  }

  /// The pages around `page` that may be written: no kept snapshot needs them. Outside of an arming they are taken from
  /// the whole 2 MiB, so that what needs no pre-image faults seldom.
  private func writable(around page: PageIndex, within window: PageRange, of region: Region) -> PageRange {
    guard let newest = region.newest, !newest.isLost else { return window }
    let limit = region.arming != nil ? window : .window(around: page, size: 512, end: region.pageCount)
    var first = page
    while first > limit.lowerBound, newest.states[first - 1] != .atOrigin { first -= 1 }
    var end = page + 1
    while end < limit.upperBound, newest.states[end] != .atOrigin { end += 1 }
    return first..<end
  }

  private func lift(_ range: PageRange, of region: Region) {
    let address = region.address(of: range.lowerBound)
    var answer = UserfaultAnswer.again
    while answer == .again { answer = region.userfaultfd!.lift(address: address, length: range.byteCount) }
    // Released meanwhile: it needs no lifting, and who waits is woken by the release or here.
    if answer == .notRegistered {
      answer = region.userfaultfd!.wake(address: address, length: range.byteCount)
    }
    check(answer, region)
  }

  /// The snapshot's pre-images can not be kept. The origin goes on; clones that are not whole have to end, and so has
  /// every older snapshot that looks for pages here.
  func lose(_ snapshot: Snapshot, because trouble: PageTrouble) {
    let reason =
      switch trouble {
      case .noMemory: "no memory is left for its pre-images"
      case .originGone, .pending:
        "its origin \(snapshot.originName) has ended and \(snapshot.unsavedCount) pages were not fetched"
      case let .failed(error): "its pre-images could not be saved: \(error)"
      }
    loseAll(from: snapshot, reason)
  }
}
