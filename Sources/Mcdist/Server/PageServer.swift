import GuestMemory
import LinuxSystem

/// Sends the pages of one snapshot to other hosts: sockets, sealing and compression around a `ServerMachine`.
///
/// No thread of its own: the owner's thread calls `readable` when a descriptor is, `due` at `nextDeadline`.
public final class PageServer {
  public struct Configuration: Sendable {
    /// IPv4, of this host; datagrams leave and arrive there.
    public var address: String
    /// 0: the kernel chooses.
    public var port: UInt16 = 0
    /// Nil: a random one of 239.192.0.0/14 (RFC 2365) and a random port.
    public var group: (address: String, port: UInt16)?
    public var key: [UInt8]
    public var transport = TransportMode.auto
    public var pageCount: Int
    /// Routers that multicast may cross.
    public var hops = 8

    public init(address: String, key: [UInt8], pageCount: Int) {
      self.address = address
      self.key = key
      self.pageCount = pageCount
    }
  }

  public let port: UInt16
  public let group: (address: String, port: UInt16)
  public let pageCount: Int
  public private(set) var dropped: UInt64 = 0
  private unowned let provider: any PageProvider
  private let socket: DatagramSocket
  private let groupAddress: DatagramAddress
  private var machine: ServerMachine
  private var opener: Opener
  private var groupSealer: Sealer
  private var unicastSealer: Sealer
  private var batch: DatagramBatch
  private var echo = DatagramBatch.Echo()
  private var clients: [UInt32: DatagramAddress] = [:]
  private var goneReason: String?
  private let input: UnsafeMutableRawBufferPointer
  private let scratch: UnsafeMutableRawPointer
  private static let pagesAtOnce = 64

  /// EINVAL: an address is none.
  public init(_ configuration: Configuration, provider: any PageProvider) throws(SystemError) {
    self.provider = provider
    pageCount = configuration.pageCount
    let group =
      configuration.group ?? (
        "239.\(Int.random(in: 192...195)).\(Int.random(in: 0...255)).\(Int.random(in: 1...254))",
        UInt16.random(in: 20000...32000)
      )
    guard let local = DatagramAddress(configuration.address, port: configuration.port),
      let groupAddress = DatagramAddress(group.address, port: group.port)
    else { throw SystemError("serve", subject: configuration.address, errno: 22) }
    self.group = group
    self.groupAddress = groupAddress
    socket = try DatagramSocket(local)
    if configuration.transport != .unicast {
      try socket.sendsMulticast(by: local, hops: configuration.hops)
    }
    port = try socket.port()
    machine = ServerMachine(pageCount: pageCount, unicastOnly: configuration.transport == .unicast)
    opener = Opener(snapshotKey: configuration.key)
    groupSealer = Sealer(snapshotKey: configuration.key)
    unicastSealer = Sealer(snapshotKey: configuration.key)
    batch = DatagramBatch(socket: socket)
    input = .allocate(byteCount: 65536, alignment: 64)
    scratch = .allocate(byteCount: 3 * Page.bytes, alignment: Page.bytes)
  }

  deinit {
    batch.deallocate()
    input.deallocate()
    scratch.deallocate()
  }

  public var descriptors: [OwnedDescriptor] { [socket.descriptor] }
  public var counters: ServerCounters { machine.counters }
  public var bytesSent: UInt64 { batch.bytesSent }
  public var rateLimitBytesPerSecond: UInt64 { UInt64(machine.limit.bytesPerSecond) }
  /// What each new host will need first, in order.
  public var workingSet: [PageRange] {
    get { machine.workingSet }
    set { machine.workingSet = newValue }
  }
  /// Called with each page that a fault on another host waits for, in their order.
  public var onDemand: ((PageIndex) -> Void)?

  public func readable(now: UInt64) {
    for _ in 0..<16 {
      guard let (count, segment, from) = socket.receive(into: input) else { break }
      for at in stride(from: 0, to: count, by: max(segment, 1)) {
        take(UnsafeRawBufferPointer(rebasing: input[at..<min(at + segment, count)]), from, now)
      }
    }
    send(now)
  }

  /// Sends what may be sent now. 64 pages at most: the owner's other work comes in between.
  public func due(now: UInt64) { send(now) }

  public func nextDeadline(now: UInt64) -> UInt64? {
    goneReason == nil ? machine.nextDeadline(now: now) : nil
  }

  /// Tells all receivers, now and whenever they ask, that pages which they lack will not come.
  public func announceGone(_ reason: String) {
    guard goneReason == nil else { return }
    goneReason = reason
    tellGone(groupAddress, &groupSealer)
    for client in clients.values { tellGone(client, &unicastSealer) }
  }

  private func take(_ datagram: UnsafeRawBufferPointer, _ from: DatagramAddress, _ now: UInt64) {
    let body = scratch
    guard let opened = opener.open(datagram, into: body), opened.kind == .request,
      let request = PageRequest.decode(
        UnsafeRawBufferPointer(start: body, count: opened.bodyBytes), pageCount: pageCount)
    else {
      dropped += 1
      return
    }
    if goneReason != nil {
      tellGone(from, &unicastSealer)
      return
    }
    if clients.count < 65536 || clients[request.client] != nil { clients[request.client] = from }
    machine.receive(request, now: now)
    if let onDemand {
      for run in request.runs where run.urgency == .demand && !run.isRetry { onDemand(Int(run.first)) }
    }
    echo = .init(client: request.client, time: request.clientTime)
    if request.probesMulticast { sign() }
  }

  private func send(_ now: UInt64) {
    guard goneReason == nil else { return }
    for _ in 0..<Self.pagesAtOnce {
      guard let next = machine.next(now: now) else { break }
      switch next.to {
      case .group: put(next, groupAddress, &groupSealer, now)
      case let .client(id):
        if let address = clients[id] { put(next, address, &unicastSealer, now) }
      }
      if goneReason != nil { return }
    }
    if let last = batch.destination {
      if last == groupAddress { batch.flush(with: &groupSealer) } else { batch.flush(with: &unicastSealer) }
    }
  }

  private func put(
    _ next: ServerMachine.Transmission, _ to: DatagramAddress, _ sealer: inout Sealer, _ now: UInt64
  ) {
    let page = scratch
    let encoded = scratch + Page.bytes
    switch provider.read(next.page, into: page) {
    case .pending: machine.withdraw(next)
    case let .lost(reason): announceGone(reason)
    case .zero:
      turn(to, &sealer)
      batch.putZero(next.page, echo: &echo, with: &sealer)
      machine.sent(bytes: batch.takeCost(), now: now)
    case .bytes:
      turn(to, &sealer)
      let count = PageCompression.compress(page, into: encoded)
      batch.putPage(
        next.page,
        encoded: UnsafeRawBufferPointer(start: count == nil ? page : encoded, count: count ?? Page.bytes),
        echo: &echo, with: &sealer)
      machine.sent(bytes: batch.takeCost(), now: now)
    }
  }

  /// What goes elsewhere is sent first: it was sealed for there.
  private func turn(_ to: DatagramAddress, _ sealer: inout Sealer) {
    if let before = batch.destination, before != to, (before == groupAddress) != (to == groupAddress) {
      if before == groupAddress { batch.flush(with: &groupSealer) } else { batch.flush(with: &unicastSealer) }
    }
    batch.begin(to: to, with: &sealer)
  }

  /// A datagram without pages, to see whether multicast arrives.
  private func sign() {
    (scratch).initializeMemory(as: UInt8.self, repeating: 0xFF, count: PageRecords.fixedBytes)
    sendAlone(
      .pages, UnsafeRawBufferPointer(start: scratch, count: PageRecords.fixedBytes), groupAddress,
      &groupSealer)
  }

  private func tellGone(_ to: DatagramAddress, _ sealer: inout Sealer) {
    let reason = Array((goneReason ?? "").utf8.prefix(1000))
    reason.withUnsafeBytes { sendAlone(.gone, $0, to, &sealer) }
  }

  private func sendAlone(
    _ kind: Datagram.Kind, _ body: UnsafeRawBufferPointer, _ to: DatagramAddress, _ sealer: inout Sealer
  ) {
    let out = scratch + 2 * Page.bytes
    let count = sealer.seal(kind, body: body, into: out)
    _ = socket.send(UnsafeRawBufferPointer(start: out, count: count), segment: Datagram.bytesMax, to: to)
  }
}
