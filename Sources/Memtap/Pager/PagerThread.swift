import Glibc
import GuestMemory
import LinuxSystem
import Synchronization

/// How many pages are handled at once; powers of two. Measured by bench/fault.
package struct PagerTuning: Sendable {
  /// Saved together on one write fault of an origin.
  package var preimageWindow = 16
  /// Fetched together on one missing fault of a clone, from this host.
  package var fetchWindow = 8
  /// From another host: fewer, for each crosses the network.
  package var remoteWindow = 2
  /// Mapped to zeros together.
  package var zeroWindow = 64
  package init() {}

  /// `preimage=8,fetch=32`: for measuring. Each a power of two, at most 64; anything else is ignored.
  package mutating func override(from text: String?) {
    for part in (text ?? "").split(separator: ",") {
      let pair = part.split(separator: "=")
      guard pair.count == 2, let size = Int(pair[1]), (1...64).contains(size), size & (size - 1) == 0 else {
        continue
      }
      switch pair[0] {
      case "preimage": preimageWindow = size
      case "fetch": fetchWindow = size
      case "remote": remoteWindow = size
      case "zero": zeroWindow = size
      default: break
      }
    }
  }
}

/// A thread that serves the faults of whole families: a parent, its snapshots, their clones, and theirs.
///
/// All page state of a family belongs to its thread, so none of it has a lock or a claim: two faults on one page come
/// one after the other. Control calls run here too, between batches of faults (`perform`).
final class PagerThread: @unchecked Sendable {
  let tuning: PagerTuning
  let events: EventHub
  /// Where pages pass through on their way into a cache file.
  let buffer: HeldBuffer
  let epoll: Epoll
  private let wake: EventDescriptor
  /// Orders calls from other threads; held for an append or a swap only.
  private let calls = Mutex<[@Sendable () -> Void]>([])
  private let messages: UnsafeMutableRawPointer
  private static let messagesAtOnce = 64
  /// By epoll tag, 1 and up. Nil: free.
  private var regions: [Region?] = [nil]
  /// Servers and receivers of pages, by epoll tag less `endpointTag`. Nil: free.
  var endpoints: [(any NetworkEndpoint)?] = []
  /// For what pages are brought in just now.
  var arrival = PageArrival.touched
  /// Every snapshot of its families that is kept.
  var snapshots: [Snapshot] = []

  init(name: String, tuning: PagerTuning, events: EventHub) throws(SystemError) {
    self.tuning = tuning
    self.events = events
    buffer = try HeldBuffer(pages: max(tuning.preimageWindow, tuning.fetchWindow, 64))
    messages = .allocate(byteCount: Self.messagesAtOnce * Userfaultfd.messageBytes, alignment: 8)
    epoll = try Epoll()
    wake = try EventDescriptor()
    try epoll.add(wake.descriptor, .readable, tag: 0)
    try NamedThread(name) { [self] in run() }.detach()
  }

  /// Runs `body` on the thread and waits for it. Not to be called on the thread itself.
  func perform<T>(_ body: @escaping () -> T) -> T {
    let call = Call(body)
    post { call.run() }
    return call.wait()
  }

  /// The same, for a body that throws.
  func attempt<T>(_ body: @escaping () throws(MemtapError) -> T) throws(MemtapError) -> T {
    let outcome: Result<T, MemtapError> = perform {
      do throws(MemtapError) { return .success(try body()) } catch { return .failure(error) }
    }
    return try outcome.get()
  }

  /// A body on its way to another thread, and its result on the way back. The semaphore orders the two.
  private final class Call<T>: @unchecked Sendable {
    private let body: () -> T
    private var result: T?
    private let done = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)

    init(_ body: @escaping () -> T) {
      self.body = body
      sem_init(done, 0, 0)
    }

    deinit {
      sem_destroy(done)
      done.deallocate()
    }

    func run() {
      result = body()
      sem_post(done)
    }

    func wait() -> T {
      while sem_wait(done) != 0 {}  // EINTR
      return result!
    }
  }

  /// Runs `body` on the thread, with nobody waiting.
  func post(_ body: @escaping @Sendable () -> Void) {
    calls.withLock { $0.append(body) }
    wake.signal()
  }

  /// Serves the region's faults from now on.
  func serve(_ region: Region) throws(SystemError) {
    region.isServed = true
    if regions.contains(where: { $0 === region }) { return }
    let tag = regions.dropFirst().firstIndex { $0 == nil } ?? regions.count
    try epoll.add(region.userfaultfd!.descriptor, .readable, tag: UInt64(tag))
    if tag == regions.count { regions.append(region) } else { regions[tag] = region }
  }

  /// Its faults are not served any more.
  func abandon(_ region: Region) {
    guard let index = regions.firstIndex(where: { $0 === region }) else { return }
    regions[index] = nil
    if let userfaultfd = region.userfaultfd { epoll.remove(userfaultfd.descriptor) }
  }

  private func run() {
    while true {
      let count: Int
      do throws(SystemError) { count = try epoll.wait(nanoseconds: patience()) } catch {
        fatalError("\(error)")
      }
      var called = false
      // Faults first.
      for index in 0..<count {
        let tag = epoll.tag(index)
        if tag == 0 {
          called = true
        } else if tag < Self.endpointTag, let region = regions[Int(tag)] {
          serveFaults(of: region)
        }
      }
      if !endpoints.isEmpty { serveNetwork(ready: count) }
      if called { runCalls() }
    }
  }

  private func runCalls() {
    wake.clear()
    let due = calls.withLock { calls in
      let due = calls
      calls.removeAll(keepingCapacity: true)
      return due
    }
    for call in due { call() }
  }

  /// A batch: what waits now, at most `messagesAtOnce`; what comes meanwhile is the next round's.
  private func serveFaults(of region: Region) {
    guard let count = region.userfaultfd!.read(into: messages, limit: Self.messagesAtOnce) else {
      abandon(region)  // its end is reported by the shim's socket
      return
    }
    for index in 0..<count {
      guard let fault = Userfaultfd.fault(in: messages, at: index) else { continue }
      serve(fault, of: region)
    }
  }

  private func serve(_ fault: Userfault, of region: Region) {
    let start = monotonicNanoseconds()
    guard let page = region.page(at: fault.address) else {
      doom(region, "a fault at \(fault.address), outside of its RAM")
      return
    }
    if fault.isWriteProtect {
      serveWrite(to: page, of: region)
      region.counters.preimageTime.record(nanoseconds: monotonicNanoseconds() - start)
    } else {
      serveMissing(page, of: region, since: start)
    }
  }

  /// The VM can not go on rightly: whoever waits for this page waits until the daemon ends the VM.
  func doom(_ region: Region, _ reason: String) {
    guard region.doomReason == nil, !region.isGone else { return }
    region.doomReason = reason
    events.post(.mustEnd(vm: region.name, reason: reason))
  }
}
