import GuestMemory
import LinuxSystem

/// Collects page records into sealed datagrams, and those into calls that send many at once.
///
/// All datagrams of a call but the last are filled to their full size, as segmentation offload wants it.
struct DatagramBatch {
  private static let datagramsMax = 16
  private let socket: DatagramSocket
  private let out: UnsafeMutableRawPointer
  private var outBytes = 0
  private let bodyStart: UnsafeMutableRawPointer
  private var body: BodyWriter
  private var isOpen = false
  private var hasSegmentation = true
  private(set) var destination: DatagramAddress?
  private(set) var bytesSent: UInt64 = 0
  /// Of the records since the last `takeCost`.
  private var cost = 0

  init(socket: DatagramSocket) {
    self.socket = socket
    out = .allocate(byteCount: Self.datagramsMax * Datagram.bytesMax, alignment: 64)
    bodyStart = .allocate(byteCount: Datagram.bodyMax, alignment: 64)
    body = BodyWriter(bodyStart, capacity: Datagram.bodyMax)
  }

  func deallocate() {
    out.deallocate()
    bodyStart.deallocate()
  }

  mutating func begin(to destination: DatagramAddress, with sealer: inout Sealer) {
    if let old = self.destination, old != destination { flush(with: &sealer) }
    self.destination = destination
  }

  mutating func putZero(_ page: PageIndex, echo: inout Echo, with sealer: inout Sealer) {
    if isOpen, body.room < PageRecords.zeroBytes { close(with: &sealer, filled: true) }
    open(&echo)
    body.put(UInt8(1))
    body.put(UInt32(page))
    body.put(UInt16(1))
    cost += PageRecords.zeroBytes
  }

  mutating func putPage(
    _ page: PageIndex, encoded: UnsafeRawBufferPointer, echo: inout Echo, with sealer: inout Sealer
  ) {
    var done = 0
    while done < encoded.count {
      let left = encoded.count - done
      if isOpen, body.room < PageRecords.partBytes + min(left, PageRecords.partMin) {
        close(with: &sealer, filled: true)
      }
      open(&echo)
      let room = body.room - PageRecords.partBytes
      let piece = left <= room ? left : room & ~7
      body.put(UInt8(2))
      body.put(UInt32(page))
      body.put(UInt16(encoded.count))
      body.put(UInt16(done))
      body.put(UInt16(piece))
      body.put(encoded.baseAddress! + done, count: piece)
      done += piece
    }
    cost += encoded.count
  }

  private mutating func open(_ echo: inout Echo) {
    guard !isOpen else { return }
    isOpen = true
    body.reset()
    body.put(echo.client)
    body.put(echo.time)
    echo = Echo()
    cost += Datagram.headerBytes + Datagram.tagBytes + PageRecords.fixedBytes
  }

  private mutating func close(with sealer: inout Sealer, filled: Bool) {
    guard isOpen else { return }
    if filled { body.pad() }
    isOpen = false
    outBytes += sealer.seal(
      .pages, body: UnsafeRawBufferPointer(start: bodyStart, count: body.count), into: out + outBytes)
    if !filled || outBytes == Self.datagramsMax * Datagram.bytesMax { send() }
  }

  /// Sends what there is.
  mutating func flush(with sealer: inout Sealer) {
    close(with: &sealer, filled: false)
    send()
    destination = nil
  }

  private mutating func send() {
    guard outBytes > 0, let destination else { return }
    if hasSegmentation {
      let all = UnsafeRawBufferPointer(start: out, count: outBytes)
      if case .noSegmentation = socket.send(all, segment: Datagram.bytesMax, to: destination) {
        hasSegmentation = false
      }
    }
    if !hasSegmentation {
      for at in stride(from: 0, to: outBytes, by: Datagram.bytesMax) {
        let one = UnsafeRawBufferPointer(start: out + at, count: min(Datagram.bytesMax, outBytes - at))
        // What the socket does not take is lost, and asked for again.
        _ = socket.send(one, segment: Datagram.bytesMax, to: destination)
      }
    }
    bytesSent += UInt64(outBytes)
    outBytes = 0
  }

  /// Bytes that the records since the last call took.
  mutating func takeCost() -> Int {
    defer { cost = 0 }
    return cost
  }

  /// Whose request the next datagram answers.
  struct Echo {
    var client: UInt32 = 0
    var time: UInt64 = 0
  }
}
