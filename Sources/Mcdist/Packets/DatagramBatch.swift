import Crypto
import GuestMemory
import LinuxSystem

/// Datagrams of pages to one endpoint, sealed one after the other and sent with one call: all of full size but the last.
struct DatagramBatch: ~Copyable {
  /// 44 datagrams: about as many as one call of a UDP socket takes in bytes.
  static let datagramsMax = 44
  private let bytes: UnsafeMutableRawPointer
  private var used = 0
  private var datagrams = 0
  private var writer = PageWriter()
  private let compressor = PageCompressor()
  private let compressed: UnsafeMutableRawPointer
  /// Sealed and in the making since the last `takeCost`.
  private var cost = 0
  private var accounted = 0
  var isSegmenting = true
  /// Parities for blocks of what is sent by multicast, as many as `parities` says.
  private var block: OutgoingBlock
  var parities = 0
  private let multicastInstance: UInt64
  private(set) var datagramsSent: UInt64 = 0
  private(set) var bytesSent: UInt64 = 0

  /// `multicastInstance`: of the sealer of what goes out by multicast.
  init(snapshotKey: SymmetricKey, multicastInstance: UInt64, parityInstance: UInt64) {
    self.multicastInstance = multicastInstance
    block = OutgoingBlock(
      snapshotKey: snapshotKey, instance: multicastInstance, parityInstance: parityInstance)
    bytes = .allocate(byteCount: Self.datagramsMax * PacketHeader.pagesDatagramBytesMax, alignment: 16)
    compressed = .allocate(byteCount: PageCompressor.compressedMax, alignment: 16)
  }
  deinit {
    bytes.deallocate()
    compressed.deallocate()
  }

  var isEmpty: Bool { datagrams == 0 && writer.isEmpty }
  /// Room for a page in any case: at most 5 datagrams are begun by one.
  var hasRoom: Bool { datagrams + 5 <= Self.datagramsMax }

  /// Puts a page in, or pieces of it. `page`'s bytes nil: zeros.
  mutating func add(
    _ page: PageIndex, _ content: UnsafeRawPointer?, _ parts: UInt16 = PageParts.all, sealer: inout Sealer,
    echo: () -> RequestEcho?
  ) {
    guard let content, !PageCompressor.isZero(content) else {
      while !writer.zeros(page) { close(&sealer, padded: true, echo()) }
      return
    }
    let encoding: PageEncoding
    let whole: UnsafeRawBufferPointer
    if let count = compressor.compress(content, into: compressed) {
      (encoding, whole) = (.zstd, UnsafeRawBufferPointer(start: compressed, count: count))
    } else {
      (encoding, whole) = (.raw, UnsafeRawBufferPointer(start: content, count: Page.bytes))
    }
    if parts == PageParts.all {
      if encoding == .zstd, writer.same(page, as: whole, encoding) { return }
      add(page, encoding, whole, 0..<whole.count, &sealer, echo)
      return
    }
    var piece = 0
    while piece < 16 {
      let first = piece
      while piece < 16, parts >> UInt16(piece) & 1 != 0 { piece += 1 }
      let start = min(first * PageParts.bytes, whole.count)
      let bytes = start..<max(start, min(piece * PageParts.bytes, whole.count))
      if !bytes.isEmpty { add(page, encoding, whole, bytes, &sealer, echo) }
      if first == piece { piece += 1 }
    }
  }

  private mutating func add(
    _ page: PageIndex, _ encoding: PageEncoding, _ whole: UnsafeRawBufferPointer, _ bytes: Range<Int>,
    _ sealer: inout Sealer, _ echo: () -> RequestEcho?
  ) {
    var offset = bytes.lowerBound
    while offset < bytes.upperBound {
      offset += writer.part(page, encoding, whole, offset..<bytes.upperBound)
      if offset < bytes.upperBound { close(&sealer, padded: true, echo()) }
    }
  }

  /// What `add` has cost since the last call, in bytes of UDP payload.
  mutating func takeCost() -> Int {
    let total = cost + (writer.isEmpty ? 0 : writer.used)
    defer { accounted = total }
    return max(0, total - accounted)
  }

  /// Seals what is in the making, and sends all. False: the socket is full; `flush` again later.
  mutating func flush(
    _ socket: DatagramSocket, to endpoint: DatagramEndpoint, sealer: inout Sealer, echo: () -> RequestEcho?
  ) -> Bool {
    if !writer.isEmpty { close(&sealer, padded: false, echo()) }
    guard datagrams > 0 else { return true }
    let all = UnsafeRawBufferPointer(start: bytes, count: used)
    if isSegmenting && datagrams > 1 {
      switch socket.send(all, segment: PacketHeader.pagesDatagramBytesMax, to: endpoint) {
      case .full: return false
      case .notSegmented: isSegmenting = false
      case .done, .lost:
        sent(socket, endpoint)
        return true
      }
    }
    var at = 0
    while at < used {
      let end = min(at + PacketHeader.pagesDatagramBytesMax, used)
      // What a full socket does not take in the middle is lost, and asked for again.
      if socket.send(UnsafeRawBufferPointer(rebasing: all[at..<end]), to: endpoint) == .full, at == 0 {
        return false
      }
      at = end
    }
    sent(socket, endpoint)
    return true
  }

  private mutating func sent(_ socket: DatagramSocket, _ endpoint: DatagramEndpoint) {
    datagramsSent += UInt64(datagrams)
    bytesSent += UInt64(used)
    (used, datagrams, cost, accounted) = (0, 0, 0, 0)
    guard block.hasPending else { return }
    let bytes = block.flush(socket, to: endpoint, isSegmenting: isSegmenting)
    bytesSent += UInt64(bytes)
    datagramsSent += UInt64(bytes / PacketHeader.datagramBytesMax)
    (cost, accounted) = (bytes, 0)
  }

  private mutating func close(_ sealer: inout Sealer, padded: Bool, _ echo: RequestEcho?) {
    precondition(datagrams < Self.datagramsMax)
    let body = writer.finish(echo: echo, padded: padded)
    if sealer.instance == multicastInstance { block.add(sealer.counter, body, parities: parities) }
    let count = sealer.seal(body, kind: .pages, into: bytes + used)
    used += count
    cost += count
    datagrams += 1
    writer.begin()
  }
}
