import Crypto
import GuestMemory
import LinuxSystem

/// Sends the pages of one snapshot to other hosts: `ServerMachine` with its sockets. On its owner's thread only; it
/// has none of its own, never blocks, and calls the provider on that thread.
public final class PageServer {
  public struct Configuration: Sendable {
    /// IPv4 address of this host, as text, where requests are received.
    public var address: String
    public var transport: TransportMode
    /// 32 random bytes of this snapshot.
    public var key: [UInt8]
    public var pageCount: Int
    /// Sent to each new host first, in this order.
    public var workingSet: [PageRange]
    /// The part of it for hosts with a standby of the origin; nil: all.
    public var warmWorkingSet: [PageRange]?
    /// As before a restart; nil: chosen here.
    public var port: UInt16?
    public var group: String?
    public var groupPort: UInt16?
    /// Routers that a multicast datagram may pass.
    public var timeToLive: UInt8

    public init(
      address: String, transport: TransportMode = .auto, key: [UInt8], pageCount: Int,
      workingSet: [PageRange] = [], warmWorkingSet: [PageRange]? = nil, port: UInt16? = nil,
      group: String? = nil, groupPort: UInt16? = nil,
      timeToLive: UInt8 = 8
    ) {
      self.address = address
      self.transport = transport
      self.key = key
      self.pageCount = pageCount
      self.workingSet = workingSet
      self.warmWorkingSet = warmWorkingSet
      self.port = port
      self.group = group
      self.groupPort = groupPort
      self.timeToLive = timeToLive
    }
  }

  /// Where receivers find this server: what a `PageReceiver.Configuration` needs, besides the key.
  public struct Origin: Sendable, Equatable {
    public var address: String
    public var port: UInt16
    public var group: String
    public var groupPort: UInt16

    public init(address: String, port: UInt16, group: String, groupPort: UInt16) {
      self.address = address
      self.port = port
      self.group = group
      self.groupPort = groupPort
    }
  }

  public struct Counters: Sendable, Equatable {
    public init() {}
    /// UDP payload.
    public var bytesSent: UInt64 = 0
    public var datagramsSent: UInt64 = 0
    /// Pages asked for, one for each page and host.
    public var requests: UInt64 = 0
    /// Pages sent.
    public var served: UInt64 = 0
    public var lockstepSuppressed: UInt64 = 0
    public var retransmitted: UInt64 = 0
    public var rateLimitBytesPerSecond: UInt64 = 0
    /// Datagrams that were forged, altered, replayed or malformed.
    public var dropped: UInt64 = 0
  }

  public let origin: Origin
  /// One is readable: call `readable`. They do not change as long as the server lives.
  public let descriptors: [OwnedDescriptor]
  let provider: any PageProvider
  let pageCount: Int
  let socket: DatagramSocket
  let group: DatagramEndpoint
  let opener: Opener
  /// Multicast and unicast come over different sockets of a receiver, so each has a counter of its own.
  var multicastSealer: Sealer
  var unicastSealer: Sealer
  var machine: ServerMachine
  var batch: DatagramBatch
  /// Where the open batch goes.
  var destination: Transmission.Destination?
  /// A full socket: nothing is sent before this.
  var blockedUntil: UInt64?
  /// Where clients were heard last.
  var endpoints: [UInt32: DatagramEndpoint] = [:]
  var echoes = Ring<(client: UInt32, time: UInt64, at: UInt64)>()
  var gone: Gone?
  var dropped: UInt64 = 0
  let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: DatagramSocket.receiveBytes, alignment: 16)
  let body = UnsafeMutableRawPointer.allocate(byteCount: PacketHeader.bodyBytesMax, alignment: 16)
  let page = UnsafeMutableRawPointer.allocate(byteCount: Page.bytes, alignment: 4096)

  /// `no page will come any more`, said again at growing distances.
  struct Gone {
    var reason: [UInt8]
    var again: UInt64?
    var distance: UInt64
  }

  /// Binds the sockets. Throws: an address is none of this host's, or a port that is to be reused is taken.
  public init(_ configuration: Configuration, provider: any PageProvider) throws(SystemError) {
    precondition(configuration.key.count == 32, "the key of a snapshot has 32 bytes")
    self.provider = provider
    pageCount = configuration.pageCount
    let local = try DatagramEndpoint(configuration.address, port: configuration.port ?? 0)
    socket = try DatagramSocket(local, isShared: false, bufferBytes: 4 << 20)
    try socket.sendMulticast(from: local.address, timeToLive: configuration.timeToLive)
    var random = SystemRandomNumberGenerator()
    // RFC 2365: 239.192.0.0/14 is for one organisation.
    let chosen = DatagramEndpoint(
      address: 0xefc0_0000 | UInt32.random(in: 1..<0x3ffff, using: &random), port: 0)
    let groupAddress = configuration.group ?? chosen.addressText
    group = try DatagramEndpoint(
      groupAddress, port: configuration.groupPort ?? UInt16.random(in: 20000..<32000, using: &random))
    origin = Origin(
      address: configuration.address, port: try socket.localPort(), group: groupAddress, groupPort: group.port
    )
    descriptors = [socket.descriptor]
    let key = SymmetricKey(data: configuration.key)
    opener = Opener(snapshotKey: key, direction: .requests, sendersMax: 4096)
    multicastSealer = Sealer(snapshotKey: key, direction: .pages, instance: random.next())
    batch = DatagramBatch(
      snapshotKey: key, multicastInstance: multicastSealer.instance, parityInstance: random.next())
    unicastSealer = Sealer(snapshotKey: key, direction: .pages, instance: random.next())
    var figures = ServerConfiguration()
    figures.transport = configuration.transport
    figures.workingSet = configuration.workingSet
    figures.warmWorkingSet = configuration.warmWorkingSet
    machine = ServerMachine(pageCount: configuration.pageCount, configuration: figures)
  }

  deinit {
    buffer.deallocate()
    body.deallocate()
    page.deallocate()
  }

  public var counters: Counters {
    var result = Counters()
    result.bytesSent = batch.bytesSent
    result.datagramsSent = batch.datagramsSent
    result.requests = machine.counters.requests
    result.served = machine.counters.served
    result.lockstepSuppressed = machine.counters.lockstepSuppressed
    result.retransmitted = machine.counters.retransmitted
    result.rateLimitBytesPerSecond = UInt64(machine.rateLimitBytesPerSecond)
    result.dropped = dropped
    return result
  }

  /// When to call `due`, by the clock of the callers' `now` (a time that has passed: at once); nil: only after `readable`.
  public var nextDeadline: UInt64? {
    if let gone { return gone.again }
    if let blockedUntil { return blockedUntil }
    return machine.nextDeadline(now: lastNow)
  }
  var lastNow: UInt64 = 0

  /// Takes in what the socket has and sends what may be sent: some 256 KiB a call, so that the thread can serve
  /// faults in between; `nextDeadline` says when to go on. `now`: nanoseconds, CLOCK_MONOTONIC.
  public func readable(now: UInt64) {
    lastNow = now
    receive(now)
    send(now)
  }

  /// The same when `nextDeadline` has come.
  public func due(now: UInt64) { readable(now: now) }

  /// Tells all receivers that no page will come any more, and sends none from now on. `due` says it again for those
  /// that it did not reach; later requests are answered so.
  public func announceGone(_ reason: String, now: UInt64) {
    guard gone == nil else { return }
    gone = Gone(
      reason: Array((reason.isEmpty ? "no reason is known" : reason).utf8.prefix(512)), again: now,
      distance: 20_000_000)
    lastNow = now
    send(now)
  }

  /// Sends these first to each new host from now on; `warm` to one with a standby of the origin, nil: all.
  public func offer(_ workingSet: [PageRange], warm: [PageRange]?) { machine.offer(workingSet, warm: warm) }
}
