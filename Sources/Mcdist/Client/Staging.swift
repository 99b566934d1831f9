import GuestMemory
import LinuxSystem

/// Pages that came and are not installed yet, in runs of consecutive pages whose bytes follow each other too. The memory
/// is a `HeldBuffer`'s, so that a sink may write it to a file as it is.
struct Staging: ~Copyable {
  /// Pages of bytes; with so many a batch is full.
  static let pagesMax = 1024
  private static let chunk = 256
  struct Run {
    var pages: PageRange
    /// The first page's place; nil: zeros.
    var place: Int?
    var how: Arrival
  }

  private var chunks: [HeldBuffer] = []
  private(set) var runs: [Run] = []
  private var used = 0

  init() { runs.reserveCapacity(Self.pagesMax) }

  var isEmpty: Bool { runs.isEmpty }
  var isFull: Bool { used == Self.pagesMax || runs.count == Self.pagesMax }

  /// Where the next page's bytes go. Nil: no memory.
  mutating func room() -> UnsafeMutableRawPointer? {
    if used / Self.chunk == chunks.count {
      guard let more = try? HeldBuffer(pages: Self.chunk) else { return nil }
      chunks.append(more)
    }
    return chunks[used / Self.chunk].start + used % Self.chunk * Page.bytes
  }

  /// The page's bytes have been put into `room`.
  mutating func add(_ page: PageIndex, how: Arrival) {
    if let last = runs.last, let place = last.place, last.pages.upperBound == page, last.how == how,
      place + last.pages.count == used, used % Self.chunk != 0
    {
      runs[runs.count - 1].pages = last.pages.lowerBound..<page + 1
    } else {
      runs.append(Run(pages: page..<page + 1, place: used, how: how))
    }
    used += 1
  }

  mutating func addZero(_ page: PageIndex, how: Arrival) {
    if let last = runs.last, last.place == nil, last.pages.upperBound == page, last.how == how {
      runs[runs.count - 1].pages = last.pages.lowerBound..<page + 1
    } else {
      runs.append(Run(pages: page..<page + 1, place: nil, how: how))
    }
  }

  func bytes(_ run: Run) -> UnsafeRawPointer? {
    run.place.map { UnsafeRawPointer(chunks[$0 / Self.chunk].start + $0 % Self.chunk * Page.bytes) }
  }

  mutating func removeAll() {
    runs.removeAll(keepingCapacity: true)
    used = 0
  }
}
