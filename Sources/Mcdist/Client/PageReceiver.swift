import GuestMemory
import LinuxSystem

/// Gets the pages of one snapshot from its origin: sockets, opening and installation around a `ClientMachine`.
///
/// Pages that other hosts asked for are kept as well. They are installed in batches: when 1,024 have come, when one is
/// among them that a fault here waits for (SnowFlock, "Multicast Distribution"), or after 5 ms.
///
/// No thread of its own: the owner's thread calls `readable` when a descriptor is, `due` at `nextDeadline`.
public final class PageReceiver {
  public struct Configuration: Sendable {
    public var origin: (address: String, port: UInt16)
    public var group: (address: String, port: UInt16)
    /// IPv4, of this host.
    public var localAddress: String
    public var key: [UInt8]
    public var transport = TransportMode.auto
    public var pageCount: Int
    /// Nanoseconds without an answer until the origin counts as gone.
    public var silenceMax: UInt64 = 15_000_000_000

    public init(
      origin: (address: String, port: UInt16), group: (address: String, port: UInt16), localAddress: String,
      key: [UInt8], pageCount: Int
    ) {
      self.origin = origin
      self.group = group
      self.localAddress = localAddress
      self.key = key
      self.pageCount = pageCount
    }
  }

  private static let batchPages = 1024
  private static let batchTime: UInt64 = 5_000_000

  public private(set) var dropped: UInt64 = 0
  public private(set) var bytesReceived: UInt64 = 0
  public private(set) var isGone = false
  private unowned let sink: any PageSink
  private let pageCount: Int
  private let unicast: DatagramSocket
  /// Nil: unicast was asked for, or there is no multicast here.
  private let multicast: DatagramSocket?
  private let origin: DatagramAddress
  private let silenceMax: UInt64
  private var machine: ClientMachine
  private var opener: Opener
  private var sealer: Sealer
  private var assembly = PageAssembly()
  private let input: UnsafeMutableRawBufferPointer
  private let scratch: UnsafeMutableRawPointer
  /// Apart from `scratch`: an installation may ask for more while a datagram is being read.
  private let request: UnsafeMutableRawPointer

  private struct Staged {
    var page: Int
    /// Index of its bytes in the arena; -1: zeros.
    var bytes: Int
    var how: Arrival
  }
  private var staged: [Staged] = []
  private var arenaCount = 0
  private let arena: UnsafeMutableRawPointer
  private var stagedSince: UInt64 = 0
  private var hasDemanded = false

  /// EINVAL: an address is none.
  public init(_ configuration: Configuration, sink: any PageSink) throws(SystemError) {
    self.sink = sink
    pageCount = configuration.pageCount
    silenceMax = configuration.silenceMax
    guard let local = DatagramAddress(configuration.localAddress, port: 0),
      let origin = DatagramAddress(configuration.origin.address, port: configuration.origin.port),
      let group = DatagramAddress(configuration.group.address, port: configuration.group.port)
    else { throw SystemError("attach", subject: configuration.origin.address, errno: 22) }
    self.origin = origin
    unicast = try DatagramSocket(local)
    multicast = configuration.transport == .unicast ? nil : Self.join(group, local)
    machine = ClientMachine(
      pageCount: pageCount, mode: configuration.transport, seed: UInt64.random(in: 0...UInt64.max))
    opener = Opener(snapshotKey: configuration.key)
    sealer = Sealer(snapshotKey: configuration.key)
    input = .allocate(byteCount: 65536, alignment: 64)
    scratch = .allocate(byteCount: Page.bytes, alignment: Page.bytes)
    request = .allocate(byteCount: 2 * Page.bytes, alignment: Page.bytes)
    arena = .allocate(byteCount: Self.batchPages * Page.bytes, alignment: Page.bytes)
    staged.reserveCapacity(Self.batchPages)
  }

  /// Without multicast on this host everything comes by unicast, once the machine has noticed.
  private static func join(_ group: DatagramAddress, _ local: DatagramAddress) -> DatagramSocket? {
    guard let socket = try? DatagramSocket(group, isShared: true) else { return nil }
    do { try socket.join(group: group, local: local) } catch { return nil }
    return socket
  }

  deinit {
    assembly.deallocate()
    input.deallocate()
    scratch.deallocate()
    request.deallocate()
    arena.deallocate()
  }

  public var descriptors: [OwnedDescriptor] {
    [unicast.descriptor] + (multicast.map { [$0.descriptor] } ?? [])
  }
  public var counters: ClientCounters { machine.counters }
  public var transport: String { machine.isUnicast ? "unicast" : "multicast" }
  public var transportReason: String { machine.transportReason }

  // MARK: wanted

  /// A fault waits for the page; `neighbours` are brought along.
  public func demand(_ page: PageIndex, neighbours: PageRange, now: UInt64) {
    machine.demand(page)
    machine.prefetch(neighbours)
    ask(now)
  }

  public func prefetch(_ pages: PageRange, now: UInt64) {
    machine.prefetch(pages)
    ask(now)
  }

  public func setPush(_ isOn: Bool, now: UInt64) {
    machine.setPush(isOn)
    ask(now)
  }

  /// Pages that need not come: zero, or here already.
  public func markHere(_ pages: PageRange) { machine.markHere(pages) }

  // MARK: the owner's thread

  public func readable(now: UInt64) {
    read(unicast, isMulticast: false, now)
    if let multicast { read(multicast, isMulticast: true, now) }
    if hasDemanded || staged.count >= Self.batchPages { flush() }
    ask(now)
  }

  public func due(now: UInt64) {
    if !staged.isEmpty, now >= stagedSince + Self.batchTime { flush() }
    ask(now)
    if machine.silence > silenceMax { end("it has not answered for \(silenceMax / 1_000_000_000) s") }
  }

  public func nextDeadline(now: UInt64) -> UInt64? {
    if isGone { return nil }
    let asking = machine.nextDeadline(now: now)
    if staged.isEmpty { return asking }
    return min(asking ?? UInt64.max, stagedSince + Self.batchTime)
  }

  private func end(_ reason: String) {
    guard !isGone else { return }
    flush()
    isGone = true
    sink.originGone(reason)
  }

  private func ask(_ now: UInt64) {
    guard !isGone else { return }
    while let next = machine.nextRequest(now: now) {
      var body = BodyWriter(request, capacity: Datagram.bodyMax)
      next.encode(into: &body)
      let out = request + Page.bytes
      let count = sealer.seal(
        .request, body: UnsafeRawBufferPointer(start: request, count: body.count), into: out)
      // What the socket does not take is lost, and asked for again.
      _ = unicast.send(
        UnsafeRawBufferPointer(start: out, count: count), segment: Datagram.bytesMax, to: origin)
    }
  }

  private func read(_ socket: DatagramSocket, isMulticast: Bool, _ now: UInt64) {
    for _ in 0..<32 {
      guard let (count, segment, _) = socket.receive(into: input) else { return }
      for at in stride(from: 0, to: count, by: max(segment, 1)) {
        take(UnsafeRawBufferPointer(rebasing: input[at..<min(at + segment, count)]), isMulticast, now)
      }
    }
  }

  private func take(_ datagram: UnsafeRawBufferPointer, _ isMulticast: Bool, _ now: UInt64) {
    guard let opened = opener.open(datagram, into: scratch) else {
      dropped += 1
      return
    }
    bytesReceived += UInt64(datagram.count)
    let bytes = UnsafeRawBufferPointer(start: scratch, count: opened.bodyBytes)
    switch opened.kind {
    case .request: dropped += 1
    case .gone: end(String(decoding: bytes, as: UTF8.self))
    case .pages:
      var body = BodyReader(bytes)
      guard let client: UInt32 = body.take(), let time: UInt64 = body.take() else {
        dropped += 1
        return
      }
      machine.heard(
        bytes: datagram.count, multicast: isMulticast ? (opened.instance, opened.counter) : nil,
        echo: client == machine.number ? time : nil, now: now)
      do throws(PageRecords.Malformed) {
        while let record = try PageRecords.next(&body, pageCount: pageCount) {
          take(record, opened.instance, now)
        }
      } catch {
        dropped += 1
      }
    }
  }

  private func take(_ record: PageRecords.Record, _ instance: UInt64, _ now: UInt64) {
    switch record {
    case let .zero(pages):
      for page in pages { stage(page, nil, now) }
    case let .part(page, total, offset, bytes):
      guard !machine.isHere(page),
        let whole = assembly.add(page: page, total: total, offset: offset, bytes: bytes, instance: instance)
      else { return }
      stage(page, whole, now)
    }
  }

  /// `encoded`: one LZ4 block, or a page as it is; nil: zeros.
  private func stage(_ page: PageIndex, _ encoded: UnsafeRawBufferPointer?, _ now: UInt64) {
    if staged.count >= Self.batchPages { flush() }
    var bytes = -1
    if let encoded {
      let place = arena + arenaCount * Page.bytes
      if encoded.count == Page.bytes {
        place.copyMemory(from: encoded.baseAddress!, byteCount: Page.bytes)
      } else if !PageCompression.decompress(encoded, into: place) {
        dropped += 1
        return
      }
      bytes = arenaCount
    }
    guard case let .new(urgency) = machine.received(page) else { return }
    if bytes >= 0 { arenaCount += 1 }
    if staged.isEmpty { stagedSince = now }
    let how: Arrival =
      switch urgency {
      case .demand: .demanded
      case .push: .pushed
      case .prefetch, nil: .prefetched
      }
    if how == .demanded { hasDemanded = true }
    staged.append(Staged(page: page, bytes: bytes, how: how))
  }

  /// Neighbours that came one after the other are installed as one run.
  private func flush() {
    var first = 0
    while first < staged.count {
      let start = staged[first]
      var end = first + 1
      while end < staged.count, staged[end].page == start.page + (end - first), staged[end].how == start.how,
        start.bytes < 0 ? staged[end].bytes < 0 : staged[end].bytes == start.bytes + (end - first)
      {
        end += 1
      }
      sink.install(
        start.page..<start.page + (end - first),
        bytes: start.bytes < 0 ? nil : arena + start.bytes * Page.bytes,
        how: start.how)
      first = end
    }
    staged.removeAll(keepingCapacity: true)
    arenaCount = 0
    hasDemanded = false
  }
}
