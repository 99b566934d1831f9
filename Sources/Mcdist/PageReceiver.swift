import Crypto
import GuestMemory
import LinuxSystem

/// Gets the pages of one snapshot from another host: `ClientMachine` with its sockets. On its owner's thread only; it
/// has none of its own, never blocks, and calls the sink on that thread, never from within `demand` or `prefetch`.
public final class PageReceiver {
  public struct Configuration: Sendable {
    public var origin: PageServer.Origin
    public var transport: TransportMode
    /// The snapshot's, as the server has it.
    public var key: [UInt8]
    /// IPv4 address of this host, as text.
    public var localAddress: String
    public var pageCount: Int
    /// Nothing heard of the origin for so long with requests unanswered: it is gone. Nanoseconds.
    public var silence: UInt64
    /// Of the background push, bytes a second.
    public var pushRate: Double
    /// What was not written since a standby's checkpoint is here: as in its requests.
    public var isWarm: Bool

    public init(
      origin: PageServer.Origin, transport: TransportMode = .auto, key: [UInt8], localAddress: String,
      pageCount: Int, silence: UInt64 = 15_000_000_000, pushRate: Double = 32e6,
      isWarm: Bool = false
    ) {
      self.origin = origin
      self.transport = transport
      self.key = key
      self.localAddress = localAddress
      self.pageCount = pageCount
      self.silence = silence
      self.pushRate = pushRate
      self.isWarm = isWarm
    }
  }

  public struct Counters: Sendable, Equatable {
    public init() {}
    /// UDP payload that was authentic.
    public var bytesReceived: UInt64 = 0
    public var datagramsReceived: UInt64 = 0
    /// Pages asked for, and again.
    public var requests: UInt64 = 0
    public var retries: UInt64 = 0
    /// Pages installed because another host had asked.
    public var eavesdropped: UInt64 = 0
    /// Datagrams that were lost and given back by parities.
    public var repaired: UInt64 = 0
    /// Pages that came though they were here.
    public var duplicates: UInt64 = 0
    /// Datagrams that were forged, altered, replayed or malformed.
    public var dropped: UInt64 = 0
  }

  /// One is readable: call `readable`. They do not change as long as the receiver lives.
  public let descriptors: [OwnedDescriptor]
  let sink: any PageSink
  let server: DatagramEndpoint
  let unicast: DatagramSocket
  /// Nil with `.unicast`, and where the group could not be joined.
  let multicast: DatagramSocket?
  let joinTrouble: String?
  let opener: Opener
  var sealer: Sealer
  var machine: ClientMachine
  var reassembly = Reassembly()
  var blocks = IncomingBlocks()
  let expander = PageExpander()
  var staging: Staging
  let pageCount: Int
  /// Something staged is to be installed by then.
  var installDue: UInt64?
  /// No page will come any more, and the sink has been told or is about to be.
  var end: End?
  var figures = Counters()
  var lastNow: UInt64 = 0
  let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: DatagramSocket.receiveBytes, alignment: 16)
  let body = UnsafeMutableRawPointer.allocate(byteCount: PacketHeader.bodyBytesMax, alignment: 16)
  let datagram = UnsafeMutableRawPointer.allocate(byteCount: PacketHeader.datagramBytesMax, alignment: 16)
  let scratch = UnsafeMutableRawPointer.allocate(byteCount: Page.bytes, alignment: 4096)

  struct End {
    var reason: String
    var isTold = false
  }

  /// Binds the sockets and joins the group; a group that can not be joined is no error but `transportReason`, unless
  /// the configuration wants multicast only.
  public init(_ configuration: Configuration, sink: any PageSink) throws(SystemError) {
    precondition(configuration.key.count == 32, "the key of a snapshot has 32 bytes")
    self.sink = sink
    pageCount = configuration.pageCount
    server = try DatagramEndpoint(configuration.origin.address, port: configuration.origin.port)
    let local = try DatagramEndpoint(configuration.localAddress, port: 0)
    unicast = try DatagramSocket(local, isShared: false, bufferBytes: 8 << 20)
    _ = unicast.coalesce()
    var joined: DatagramSocket?
    var trouble: String?
    if configuration.transport != .unicast {
      let group = try DatagramEndpoint(configuration.origin.group, port: configuration.origin.groupPort)
      do throws(SystemError) {
        let socket = try DatagramSocket(group, isShared: true, bufferBytes: 8 << 20)
        try socket.join(group: group.address, interface: local.address)
        _ = socket.coalesce()
        joined = socket
      } catch {
        if configuration.transport == .multicast { throw error }
        trouble = "the group can not be joined: \(error)"
      }
    }
    multicast = joined
    joinTrouble = trouble
    descriptors = [unicast.descriptor] + (joined.map { [$0.descriptor] } ?? [])
    let key = SymmetricKey(data: configuration.key)
    opener = Opener(snapshotKey: key, direction: .pages, sendersMax: 16)
    var random = SystemRandomNumberGenerator()
    sealer = Sealer(snapshotKey: key, direction: .requests, instance: random.next())
    var figures = ClientConfiguration()
    figures.transport = joined == nil ? .unicast : configuration.transport
    figures.silence = configuration.silence
    figures.pushRate = configuration.pushRate
    figures.isWarm = configuration.isWarm
    machine = ClientMachine(pageCount: configuration.pageCount, configuration: figures, seed: random.next())
    staging = Staging()
  }

  deinit {
    buffer.deallocate()
    body.deallocate()
    datagram.deallocate()
    scratch.deallocate()
  }

  public var counters: Counters {
    var result = figures
    result.requests = machine.counters.requests
    result.retries = machine.counters.retries
    result.eavesdropped = machine.counters.eavesdropped
    result.duplicates = machine.counters.duplicates
    return result
  }

  /// When to call `due`, by the clock of the callers' `now` (a time that has passed: at once); nil: only after
  /// `readable` or a call below.
  public var nextDeadline: UInt64? {
    if let end { return end.isTold ? nil : lastNow }
    let next = machine.nextDeadline(now: lastNow)
    guard let installDue else { return next }
    return min(installDue, next ?? installDue)
  }

  /// `.multicast` or `.unicast`, and why not multicast, in words.
  public var transport: TransportMode { machine.isUnicast ? .unicast : .multicast }
  public var transportReason: String { joinTrouble ?? machine.transportReason }

  /// Tells the server that there is a new host, before it needs a page: the working set may come.
  public func greet(now: UInt64) {
    guard end == nil else { return }
    lastNow = now
    send(machine.greeting(now: now))
  }

  /// A fault waits for these: the request leaves before this returns. Those that have come are installed at once.
  public func demand(_ pages: PageRange, now: UInt64) {
    guard end == nil else { return }
    lastNow = now
    if !staging.isEmpty { installDue = now }
    machine.demand(pages, now: now)
    sendRequests(now)
  }

  /// Ahead of need. The request leaves at `nextDeadline`, or with an earlier one.
  public func prefetch(_ pages: PageRange, now: UInt64) {
    lastNow = now
    machine.prefetch(pages, now: now)
  }

  /// Background push: asks for all that is missing at a low rate.
  public func setPush(_ isOn: Bool, now: UInt64) {
    lastNow = now
    machine.setPush(isOn)
  }

  /// These are here already (or are zeros) and must not be asked for. What the receiver installs it knows itself.
  public func markPresent(_ pages: PageRange) { machine.markPresent(pages) }

  /// Takes in what the sockets have and installs what is due. `now`: nanoseconds, CLOCK_MONOTONIC.
  public func readable(now: UInt64) {
    lastNow = now
    if end == nil {
      if let multicast { receive(multicast, isMulticast: true, now) }
      receive(unicast, isMulticast: false, now)
      installIfDue(now)
      if machine.isOriginSilent(now: now) { end = End(reason: "it does not answer") }
      sendRequests(now)
    }
    if let end, !end.isTold {
      install()
      self.end?.isTold = true
      sink.originGone(end.reason)
    }
  }

  /// The same when `nextDeadline` has come.
  public func due(now: UInt64) { readable(now: now) }
}
