/// Cuts a byte stream into frames, whatever the other side sends.
///
/// Use: `append` what was read, then call `next` until it says `needMore`. Memory is bounded by one frame and one
/// read: a header is checked, its length field included, before a byte of its body is waited for.
///
/// After a violation the decoder looks for the next frame by itself: past a bad header it goes on at the next magic,
/// past a bad body at the byte after that body's header, so that a frame cut short does not swallow the one behind it.
public struct FrameDecoder: Sendable {
  public enum Outcome: Equatable, Sendable {
    case frame(Frame)
    /// Nothing more to be had from the bytes so far.
    case needMore
    /// The stream broke the protocol; the decoder has moved on and `next` may be called again.
    case violation(Violation)
  }

  public enum Violation: Equatable, Sendable {
    /// Bytes that begin no frame, skipped up to the next possible magic.
    case noMagic(skippedBytes: Int)
    case headerChecksum
    case unsupportedVersion(UInt8)
    case reservedFlags(UInt16)
    case bodyTooLong(UInt32)
    case bodyChecksum
  }

  private var buffer: [UInt8] = []
  private var head = 0

  public init() {}

  /// Bytes held that no frame has used yet.
  public var pendingByteCount: Int { buffer.count - head }

  /// Forgets a frame begun: for the start of a new connection.
  public mutating func reset() {
    buffer.removeAll(keepingCapacity: true)
    head = 0
  }

  public mutating func append(_ bytes: UnsafeRawBufferPointer) {
    compact()
    buffer.append(contentsOf: bytes)
  }

  public mutating func append(_ bytes: [UInt8]) {
    compact()
    buffer.append(contentsOf: bytes)
  }

  public mutating func next() -> Outcome {
    let skipped = skipToMagic()
    if skipped > 0 { return .violation(.noMagic(skippedBytes: skipped)) }
    guard pendingByteCount >= Frame.headerLength else { return .needMore }
    let header = buffer.withUnsafeBytes { bytes in
      Header(UnsafeRawBufferPointer(rebasing: bytes[head..<head + Frame.headerLength]))
    }
    if let violation = header.violation {
      head += 1
      return .violation(violation)
    }
    let bodyStart = head + Frame.headerLength
    let bodyEnd = bodyStart + Int(header.length)
    guard buffer.count >= bodyEnd else { return .needMore }
    let checksum = buffer.withUnsafeBytes {
      CRC32C.checksum(UnsafeRawBufferPointer(rebasing: $0[bodyStart..<bodyEnd]))
    }
    guard checksum == header.bodyChecksum else {
      head = bodyStart
      return .violation(.bodyChecksum)
    }
    let frame = Frame(
      type: header.type, epoch: header.epoch, request: header.request,
      body: Array(buffer[bodyStart..<bodyEnd]))
    head = bodyEnd
    return .frame(frame)
  }

  /// Moves to the first place where the magic stands or may yet come to stand; returns how many bytes that was.
  private mutating func skipToMagic() -> Int {
    let start = head
    while head < buffer.count {
      let rest = buffer[head...].prefix(4)
      if rest.elementsEqual(Self.magicBytes.prefix(rest.count)) { break }
      head += 1
    }
    return head - start
  }

  private static let magicBytes: [UInt8] = Array("SNWF".utf8)

  private mutating func compact() {
    guard head > 0 else { return }
    buffer.removeFirst(head)
    head = 0
  }
}

/// A header's fields, and whether they may be trusted.
private struct Header {
  var type: UInt8
  var epoch: UInt64
  var request: UInt32
  var length: UInt32
  var bodyChecksum: UInt32
  var violation: FrameDecoder.Violation?

  init(_ bytes: UnsafeRawBufferPointer) {
    func field<Number: FixedWidthInteger>(_ offset: Int, as: Number.Type) -> Number {
      Number(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Number.self))
    }
    let version = bytes[4]
    let flags = field(6, as: UInt16.self)
    type = bytes[5]
    epoch = field(8, as: UInt64.self)
    request = field(16, as: UInt32.self)
    length = field(20, as: UInt32.self)
    bodyChecksum = field(24, as: UInt32.self)
    let covered = UnsafeRawBufferPointer(rebasing: bytes[..<28])
    if field(28, as: UInt32.self) != CRC32C.checksum(covered) {
      violation = .headerChecksum
    } else if version != Frame.version {
      violation = .unsupportedVersion(version)
    } else if flags != 0 {
      violation = .reservedFlags(flags)
    } else if length > Frame.maximumBodyLength {
      violation = .bodyTooLong(length)
    }
  }
}
