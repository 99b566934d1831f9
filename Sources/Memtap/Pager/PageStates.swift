import Glibc
import GuestMemory
import LinuxSystem

/// Where a page of a snapshot is to be had. One byte a page in the state file, which outlives the pager.
///
///     atOrigin ──┐                      a page of the cache file is never written again once it is
///                ├──▶ present or zero   `present`, and its origin's protection is lifted only
///     atBase  ───┘                      after its state has left `atOrigin`
package enum PageState: UInt8 {
  /// Not saved yet: the origin has it unchanged, write-protected (or a newer snapshot of the origin saved it).
  case atOrigin = 0
  /// In the cache file.
  case present = 1
  /// Zeros; a hole in the cache file.
  case zero = 2
  /// Not touched by the origin, which is a clone: as in the snapshot that the origin was cloned from.
  case atBase = 3
}

/// How a page came into a snapshot, for who asks later. One byte a page.
package enum PageArrival: UInt8 {
  case notYet = 0
  case touched = 2
  case prefetched = 3
  case pushed = 4
  /// Known to be zero, so never transferred.
  case zero = 5
  /// Saved before a write of the origin.
  case saved = 6
}

/// The page states of one snapshot, mapped shared from a file on tmpfs: right at every instant, so that the
/// successor of a killed pager goes on from them. One thread at a time.
///
///     | a byte a page | dropped 1 | lost 1 | why lost, UTF-8, zero-terminated, 254 | a byte a page: `PageArrival` |
///
/// All of it is allocated at the start: no store here can fail for lack of memory.
package final class PageStates {
  package let pageCount: Int
  private let bytes: UnsafeMutablePointer<UInt8>
  private static let trailerBytes = 256
  private var length: Int { Self.length(pageCount) }
  private static func length(_ pageCount: Int) -> Int { 2 * pageCount + trailerBytes }

  /// A new file, every page `initial`.
  package init(creating path: String, pageCount: Int, initial: PageState) throws(SystemError) {
    let file = try MemoryFile.create(path, bytes: UInt64(Self.length(pageCount)))
    let code = posix_fallocate(file.descriptor.raw, 0, off_t(Self.length(pageCount)))
    if code != 0 { throw SystemError("posix_fallocate", subject: path, errno: code) }
    self.pageCount = pageCount
    bytes = try Self.map(file, Self.length(pageCount))
    memset(bytes, CInt(initial.rawValue), pageCount)
  }

  /// An existing file. EINVAL: it is not one of `pageCount` states.
  package init(opening path: String, pageCount: Int) throws(SystemError) {
    let file = try MemoryFile.open(path)
    guard try file.descriptor.size() == UInt64(Self.length(pageCount)) else {
      throw SystemError("open", subject: path, errno: EINVAL)
    }
    self.pageCount = pageCount
    bytes = try Self.map(file, Self.length(pageCount))
    for page in 0..<pageCount where PageState(rawValue: bytes[page]) == nil {
      munmap(bytes, length)
      throw SystemError("open", subject: path, errno: EINVAL)
    }
  }

  deinit { munmap(bytes, length) }

  /// Nobody will clone the snapshot any more.
  package var isDropped: Bool {
    get { bytes[pageCount] != 0 }
    set { bytes[pageCount] = newValue ? 1 : 0 }
  }

  package var isLost: Bool { bytes[pageCount + 1] != 0 }
  /// Why pages that are unresolved never will be had. Kept at most 253 bytes long; once set it stays.
  package var lostReason: String? {
    get {
      guard isLost else { return nil }
      let text = UnsafeBufferPointer(start: bytes + pageCount + 2, count: Self.trailerBytes - 2).prefix {
        $0 != 0
      }
      return text.isEmpty ? "pages of it were lost" : String(decoding: text, as: UTF8.self)
    }
    set {
      guard let reason = newValue else { return }
      bytes[pageCount + 1] = 1  // first: a pager that is killed here leaves no doubt
      for (index, byte) in reason.utf8.prefix(Self.trailerBytes - 3).enumerated() {
        bytes[pageCount + 2 + index] = byte
      }
    }
  }

  private static func map(
    _ file: MemoryFile, _ length: Int
  ) throws(SystemError) -> UnsafeMutablePointer<UInt8> {
    let mapped = mmap(
      nil, length, PROT_READ | PROT_WRITE, MAP_SHARED | CInt(MAP_POPULATE), file.descriptor.raw, 0)
    guard let mapped, mapped != MAP_FAILED else {
      throw SystemError("mmap", subject: "page states", errno: errno)
    }
    return mapped.bindMemory(to: UInt8.self, capacity: length)
  }

  package subscript(page: PageIndex) -> PageState {
    @inline(__always) get {
      assert(page >= 0 && page < pageCount)
      return unsafeBitCast(bytes[page], to: PageState.self)
    }
    @inline(__always) set {
      assert(page >= 0 && page < pageCount)
      bytes[page] = newValue.rawValue
    }
  }

  /// How the page came: meaningful once it is resolved.
  @inline(__always)
  package func note(_ page: PageIndex, _ arrival: PageArrival) {
    bytes[pageCount + Self.trailerBytes + page] = arrival.rawValue
  }

  package func arrival(_ page: PageIndex) -> PageArrival {
    PageArrival(rawValue: bytes[pageCount + Self.trailerBytes + page]) ?? .notYet
  }

  package func fill(_ range: PageRange, _ state: PageState) {
    precondition(range.lowerBound >= 0 && range.upperBound <= pageCount)
    memset(bytes + range.lowerBound, CInt(state.rawValue), range.count)
  }

  /// Whether the page's bytes still have to come from elsewhere.
  @inline(__always)
  package func isUnresolved(_ page: PageIndex) -> Bool { self[page] == .atOrigin || self[page] == .atBase }

  package func count(_ state: PageState) -> Int {
    var total = 0
    for page in 0..<pageCount where bytes[page] == state.rawValue { total += 1 }
    return total
  }

  package func contains(_ state: PageState) -> Bool { memchr(bytes, CInt(state.rawValue), pageCount) != nil }

  /// Calls `body` with each maximal run of pages for which `matches` says the same of their states, if it says yes.
  /// `matches` has one bit for each state's number. Runs of one state are skipped eight pages at a time.
  package func forEachRun(matching matches: UInt8, _ body: (PageRange) -> Void) {
    var page = 0
    while page < pageCount {
      let selected = matches >> bytes[page] & 1
      let first = page
      while page < pageCount {
        if page & 7 == 0, page + 8 <= pageCount {
          let word = UnsafeRawPointer(bytes + page).load(as: UInt64.self)
          if word == UInt64(bytes[page]) &* 0x0101_0101_0101_0101, matches >> bytes[page] & 1 == selected {
            page += 8
            continue
          }
        }
        if matches >> bytes[page] & 1 != selected { break }
        page += 1
      }
      if selected == 1 { body(first..<page) }
    }
  }
}
