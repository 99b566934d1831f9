/// What a slow link is like in one direction.
package struct LinkRate: Equatable, Sendable {
  package var bytesPerSecond: UInt64
  package var delayNanoseconds: UInt64

  package init(bytesPerSecond: UInt64, delayNanoseconds: UInt64) {
    precondition(bytesPerSecond > 0)
    self.bytesPerSecond = bytesPerSecond
    self.delayNanoseconds = delayNanoseconds
  }
}

/// One direction of a slow link: frames leave one behind the other at its rate, and arrive `delay` later. What finds
/// more than `limitBytes` waiting is dropped, as a modem does. No clock of its own: time is passed in, nanoseconds.
package struct LinkQueue: Sendable {
  /// A new one is for frames that come after it; none overtakes another.
  package var rate: LinkRate
  /// Half a second's worth, and 32 KiB at least: more than what is on its way in a round trip.
  package var limitBytes: UInt64 { max(32 << 10, rate.bytesPerSecond / 2) }

  private struct Frame {
    var due: UInt64
    var bytes: [UInt8]
  }
  private var frames: [Frame] = []
  /// Frames before it have been taken.
  private var head = 0
  /// When the last frame will have left.
  private var freeAt: UInt64 = 0
  package private(set) var dropped: UInt64 = 0

  package init(_ rate: LinkRate) { self.rate = rate }

  /// False: it was dropped.
  @discardableResult
  package mutating func push(_ bytes: [UInt8], now: UInt64) -> Bool {
    let start = max(now, freeAt)
    // Of the time until the link is free; half a second's worth of it has no 64 bits by far.
    guard (start - now) / 1000 * rate.bytesPerSecond / 1_000_000 <= limitBytes else {
      dropped += 1
      return false
    }
    freeAt = start + UInt64(bytes.count) * 1_000_000_000 / rate.bytesPerSecond
    frames.append(Frame(due: freeAt + rate.delayNanoseconds, bytes: bytes))
    return true
  }

  /// When the next frame arrives; nil: none is under way.
  package var nextDue: UInt64? { head < frames.count ? frames[head].due : nil }

  /// The next frame that has arrived by now.
  package mutating func pop(now: UInt64) -> [UInt8]? {
    guard let due = nextDue, due <= now else { return nil }
    defer {
      head += 1
      if head == frames.count || head >= 1024 {
        frames.removeFirst(head)
        head = 0
      }
    }
    return frames[head].bytes
  }
}
