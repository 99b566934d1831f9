import GuestMemory

/// What a server has of a page.
public enum PageAnswer: Sendable {
  /// The whole page is in the buffer.
  case bytes
  case zero
  /// Not to be had yet; asked for again a little later.
  case pending
  /// Never to be had.
  case lost
}

/// Who has the pages that a `PageServer` sends: called on the server's thread only.
public protocol PageProvider: AnyObject {
  /// Puts the page's bytes, as of the snapshot, into `buffer` (`Page.bytes` long).
  func read(_ page: PageIndex, into buffer: UnsafeMutableRawPointer) -> PageAnswer
  /// A host asked for the page, and not only because it is to have all. Told for each such request.
  func requested(_ page: PageIndex)
}

extension PageProvider {
  public func requested(_ page: PageIndex) {}
}

/// Where a `PageReceiver` puts pages: called on the receiver's thread only.
public protocol PageSink: AnyObject {
  /// Whether the page is still to be had from the origin.
  func isMissing(_ page: PageIndex) -> Bool
  /// Whole pages, each missing until now, in one run; `bytes` nil: all zeros. Answers false if there is no memory.
  func install(_ pages: PageRange, bytes: UnsafeRawPointer?, how: Arrival) -> Bool
  /// The origin says, or has shown by its silence, that no page will come any more.
  func originGone(_ reason: String)
}

/// Why a page came.
public enum Arrival: Sendable {
  /// A fault here waits for it.
  case demanded
  /// Asked for by this host ahead of need, or by another host (eavesdropped), or sent with a working set.
  case prefetched
  /// Asked for by this host's background push.
  case pushed
}
