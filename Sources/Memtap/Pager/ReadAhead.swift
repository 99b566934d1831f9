import GuestMemory

/// How far ahead of a demand pages are brought in. A clone that reads in order, as a file's pages mostly lie in memory, is
/// noticed by where its demands fall, and each time twice as much is brought in as before.
struct ReadAhead {
  /// From this host some 80 µs; from another some 3 ms of a gigabit link, of which little is in vain where the order ends.
  private static let pagesMax = 64
  private static let streamsMax = 8

  private struct Stream {
    /// The first page that has not been asked for.
    var end: PageIndex
    var size: Int
    var usedAt: UInt64
  }
  private var streams: [Stream] = []
  private var time: UInt64 = 0

  /// What to bring in because of a demand for `page`: the window around it, and more if a stream has come this far.
  mutating func pages(at page: PageIndex, window size: Int, end: PageIndex) -> PageRange {
    if streams.capacity == 0 { streams.reserveCapacity(Self.streamsMax) }
    time += 1
    let window = PageRange.window(around: page, size: size, end: end)
    // The end of what was asked for, or the window behind it.
    if let index = streams.firstIndex(where: {
      window.upperBound >= $0.end && window.lowerBound <= $0.end
    }) {
      streams[index].size = min(streams[index].size * 2, Self.pagesMax)
      streams[index].end = min(window.upperBound + streams[index].size, end)
      streams[index].usedAt = time
      return window.lowerBound..<streams[index].end
    }
    let stream = Stream(end: window.upperBound, size: size, usedAt: time)
    if streams.count < Self.streamsMax {
      streams.append(stream)
    } else if let oldest = streams.indices.min(by: { streams[$0].usedAt < streams[$1].usedAt }) {
      streams[oldest] = stream
    }
    return window
  }
}
