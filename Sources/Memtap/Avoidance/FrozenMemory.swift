import GuestKernel
import GuestMemory
import LinuxSystem

/// The RAM of a VM as it was at a snapshot, for who reads it beside the faults. Not on a pager thread: each step of it
/// waits its turn there.
struct FrozenMemory: AddressSpace {
  let snapshot: Snapshot
  let places: RAMPlaces

  /// Pages of one step, between which faults are served: some 50 µs.
  private static let step = 64

  func read(at address: UInt64, into buffer: UnsafeMutableRawBufferPointer) -> Bool {
    guard !buffer.isEmpty else { return true }
    guard let offset = places.offset(of: address, count: buffer.count),
      offset + UInt64(buffer.count) <= snapshot.ramBytes
    else { return false }
    let thread = snapshot.thread
    nonisolated(unsafe) let target = buffer
    var done = 0
    while done < buffer.count {
      let at = offset + UInt64(done)
      let within = Int(at % UInt64(Page.bytes))
      let page = Int(at / UInt64(Page.bytes))
      let isWhole: Bool
      let count: Int
      if within == 0, buffer.count - done >= Page.bytes {
        let pages = min((buffer.count - done) / Page.bytes, Self.step)
        count = pages * Page.bytes
        isWhole = thread.perform { [done] in
          thread.peek(page..<page + pages, of: snapshot, into: target.baseAddress! + done)
        }
      } else {
        count = min(Page.bytes - within, buffer.count - done)
        isWhole = thread.perform { [done] in
          withUnsafeTemporaryAllocation(byteCount: Page.bytes, alignment: 8) { whole in
            guard thread.peek(page..<page + 1, of: snapshot, into: whole.baseAddress!) else { return false }
            (target.baseAddress! + done).copyMemory(from: whole.baseAddress! + within, byteCount: count)
            return true
          }
        }
      }
      guard isWhole else { return false }
      done += count
    }
    return true
  }
}

extension PagerThread {
  /// Copies pages as of the snapshot that are on this host. Nothing is stored, and nobody is asked for what is not here:
  /// false then.
  func peek(_ range: PageRange, of snapshot: Snapshot, into target: UnsafeMutableRawPointer) -> Bool {
    var page = range.lowerBound
    while page < range.upperBound {
      let place = place(of: page, in: snapshot)
      var end = page + 1
      while end < range.upperBound, self.place(of: end, in: snapshot).continues(place) { end += 1 }
      let to = target + (page - range.lowerBound) * Page.bytes
      guard copy(page..<end, from: place, to: to) else { return false }
      page = end
    }
    return true
  }

  private func copy(_ range: PageRange, from place: PageSource, to target: UnsafeMutableRawPointer) -> Bool {
    do throws(SystemError) {
      switch place {
      case .zero: target.initializeMemory(as: UInt8.self, repeating: 0, count: range.count * Page.bytes)
      case let .cache(holder): try holder.cache.read(range, into: target)
      case let .base(base): return peek(range, of: base, into: target)
      case let .origin(region):
        // After a restart of the pager the origin may not be back.
        guard region.isServed, region.attachment != nil else { return false }
        try region.read(range, into: target)
      case .remote, .lost: return false
      }
      return true
    } catch {
      return false
    }
  }
}
