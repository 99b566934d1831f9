import Glibc
import LinuxSystem

/// Joins two taps by a slow link, since not every kernel has netem. What the kernel sends out of one tap is read here,
/// waits as its `LinkQueue` says, and arrives from the other.
///
///     host's namespace   eth0 ══ tap ──▶ up ──▶ tap ══ p0   the bridge's namespace
///                                   ◀── down ◀──
///
/// Frames come whole, checksums filled in, at most the MTU long: the taps take no offloads.
package final class LinkRelay {
  private let ends: [OwnedDescriptor]
  /// queues[0]: from ends[0] to ends[1]; queues[1] back.
  private var queues: [LinkQueue]
  private let epoll: Epoll
  private var buffer = [UInt8](repeating: 0, count: 65_536 + 64)

  /// The taps `near` and `far` are made in those namespaces if they are not there. EBUSY: another relay has one.
  package init(
    near: String, in nearNamespace: NetworkNamespace, far: String, in farNamespace: NetworkNamespace,
    up: LinkRate, down: LinkRate
  ) throws {
    ends = [
      try nearNamespace.run { try TapDevice.open(near) }, try farNamespace.run { try TapDevice.open(far) },
    ]
    queues = [LinkQueue(up), LinkQueue(down)]
    epoll = try Epoll()
    for (index, end) in ends.enumerated() {
      try end.setNonBlocking()
      try epoll.add(end, .readable, tag: UInt64(index))
    }
  }

  /// For what is sent from now on.
  package func setRates(up: LinkRate, down: LinkRate) {
    queues[0].rate = up
    queues[1].rate = down
  }

  /// Relays until a tap is gone or `isWanted`, asked once a second, says no.
  package func run(while isWanted: () -> Bool) throws {
    var asked: UInt64 = 0
    while true {
      let now = monotonicNanoseconds()
      if now - asked >= 1_000_000_000 {
        guard isWanted() else { return }
        asked = now
      }
      for index in 0...1 { deliver(index, now: now) }
      let due = queues.compactMap(\.nextDue).min().map { $0 > now ? $0 - now : 0 } ?? 1_000_000_000
      let ready = try epoll.wait(nanoseconds: min(due, 1_000_000_000))
      for entry in 0..<ready {
        guard take(Int(epoll.tag(entry))) else { return }
      }
    }
  }

  /// Reads what has been sent at one end. False: its tap is gone.
  private func take(_ index: Int) -> Bool {
    // So many at a time, for the other direction's sake.
    for _ in 0..<64 {
      let count = buffer.withUnsafeMutableBytes { read(ends[index].raw, $0.baseAddress, $0.count) }
      if count < 0 { return errno == EAGAIN || errno == EINTR }
      queues[index].push(Array(buffer[..<count]), now: monotonicNanoseconds())
    }
    return true
  }

  /// What can not be delivered is lost, as on any link: the other end is down, or its host has no memory.
  private func deliver(_ index: Int, now: UInt64) {
    while let frame = queues[index].pop(now: now) {
      _ = frame.withUnsafeBytes { write(ends[1 - index].raw, $0.baseAddress, $0.count) }
    }
  }
}
