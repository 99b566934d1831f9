import GuestMemory

/// What a server has of a page.
public enum PageAnswer: Sendable {
  /// The whole page is in the buffer.
  case bytes
  case zero
  /// Not to be had yet; asked for again a little later.
  case pending
  /// Never to be had, for this reason.
  case lost(String)
}

/// Who has the pages that a `PageServer` sends: called on the server's thread only.
public protocol PageProvider: AnyObject {
  /// Puts the page's bytes, as of the snapshot, into `buffer` (`Page.bytes` long).
  func read(_ page: PageIndex, into buffer: UnsafeMutableRawPointer) -> PageAnswer
}

/// Where a `PageReceiver` puts pages: called on the receiver's thread only.
public protocol PageSink: AnyObject {
  /// Whole pages in one run, each once; `bytes` nil: all zeros.
  func install(_ pages: PageRange, bytes: UnsafeRawPointer?, how: Arrival)
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
