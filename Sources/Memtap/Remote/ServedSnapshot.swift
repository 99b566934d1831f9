import Glibc
import GuestMemory
import LinuxSystem
import Mcdist

/// A snapshot of this host whose pages other hosts get. On its family's thread, which orders each read with the
/// origin's writes.
///
/// Pages are read where they are and not put into this host's cache: serving costs no memory.
final class ServedSnapshot: PageProvider, PageEndpoint {
  let origin: PageOrigin
  private(set) var server: PageServer!
  private unowned let snapshot: Snapshot
  private unowned let thread: PagerThread

  /// `origin`: of an earlier pager, to go on at the same place; nil: a new place and key.
  init(
    _ snapshot: Snapshot, on thread: PagerThread, address: String, transport: PageTransport,
    again origin: PageOrigin?
  ) throws(SystemError) {
    self.snapshot = snapshot
    self.thread = thread
    var generator = SystemRandomNumberGenerator()
    let key = origin?.key ?? (0..<32).map { _ in UInt8.random(in: 0...255, using: &generator) }
    var configuration = PageServer.Configuration(address: address, key: key, pageCount: snapshot.pageCount)
    configuration.transport = transport.mode
    if let origin {
      configuration.port = origin.port
      configuration.group = (origin.group, origin.groupPort)
    }
    let place = PageServerPlace()
    let server = try PageServer(configuration, provider: place)
    self.origin = PageOrigin(
      address: address, port: server.port, group: server.group.address, groupPort: server.group.port,
      key: key,
      transport: transport)
    self.place = place
    self.server = server
    place.owner = self
    let window = thread.tuning.fetchWindow
    if let region = snapshot.origin {
      server.workingSet = region.workingSet.windows.map {
        .window(around: $0 * window, size: window, end: snapshot.pageCount)
      }
    }
    server.onDemand = { [unowned self] page in recordDemand(page) }
  }

  /// The server holds its provider weakly and wants it before `self` is complete.
  private let place: PageServerPlace

  private final class PageServerPlace: PageProvider {
    unowned var owner: ServedSnapshot!
    func read(_ page: PageIndex, into buffer: UnsafeMutableRawPointer) -> PageAnswer {
      owner.read(page, into: buffer)
    }
  }

  private func recordDemand(_ page: PageIndex) {
    let window = page / thread.tuning.fetchWindow
    guard snapshot.origin?.workingSet.record(window: window) == true else { return }
    server.workingSet.append(
      .window(around: page, size: thread.tuning.fetchWindow, end: snapshot.pageCount))
  }

  // MARK: PageProvider

  func read(_ page: PageIndex, into buffer: UnsafeMutableRawPointer) -> PageAnswer {
    read(page, of: snapshot, into: buffer)
  }

  private func read(
    _ page: PageIndex, of snapshot: Snapshot, into buffer: UnsafeMutableRawPointer
  ) -> PageAnswer {
    switch snapshot.states[page] {
    case .present: return read(page, from: snapshot.cache, into: buffer)
    case .zero: return .zero
    case .atOrigin, .atBase: break
    }
    switch thread.source(of: page, in: snapshot) {
    case .zero: return .zero
    case .lost: return .lost(snapshot.lostReason ?? "its origin \(snapshot.originName) has ended")
    case let .cache(holder): return read(page, from: holder.cache, into: buffer)
    case let .base(base): return read(page, of: base, into: buffer)
    case let .remote(holder):
      holder.remote?.prefetch(page..<page + 1)
      return .pending
    case let .origin(region):
      // After a restart of the pager its QEMU has to come back first.
      guard let attachment = region.attachment else {
        return region.isGone ? .lost("its origin has ended") : .pending
      }
      if region.base == nil { return read(page, from: attachment.ramFile, into: buffer) }
      let address = attachment.address + UInt64(page) * UInt64(Page.bytes)
      do throws(SystemError) {
        try attachment.memory.read(at: address, into: buffer, count: Page.bytes)
      } catch {
        return .lost("its origin \(snapshot.originName) can not be read: \(error)")
      }
      return answer(buffer)
    }
  }

  private func read(
    _ page: PageIndex, from file: MemoryFile, into buffer: UnsafeMutableRawPointer
  ) -> PageAnswer {
    do throws(SystemError) {
      try file.read(at: UInt64(page) * UInt64(Page.bytes), into: buffer, count: Page.bytes)
    } catch {
      return .lost("page \(page) could not be read: \(error)")
    }
    return answer(buffer)
  }

  private func answer(_ buffer: UnsafeMutableRawPointer) -> PageAnswer {
    let isZero = buffer.load(as: UInt64.self) == 0 && memcmp(buffer, buffer + 8, Page.bytes - 8) == 0
    return isZero ? .zero : .bytes
  }

  // MARK: PageEndpoint

  var descriptors: [OwnedDescriptor] { server.descriptors }
  func readable(now: UInt64) { server.readable(now: now) }
  func due(now: UInt64) { server.due(now: now) }
  func nextDeadline(now: UInt64) -> UInt64? { server.nextDeadline(now: now) }

  var counters: DistributionCounters {
    var counters = DistributionCounters()
    counters.bytesSent = server.bytesSent
    counters.requests = server.counters.requests
    counters.served = server.counters.served
    counters.lockstepSuppressed = server.counters.lockstepSuppressed
    counters.retransmitted = server.counters.retransmitted
    counters.rateLimitBytesPerSecond = server.rateLimitBytesPerSecond
    counters.dropped = server.dropped
    counters.transport = origin.transport == .unicast ? "unicast" : "multicast"
    return counters
  }
}
