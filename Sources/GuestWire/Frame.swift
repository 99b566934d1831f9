/// One frame between sfd and a guest's agent, over the virtio-serial port `org.snowfork.agent`.
///
/// All numbers are little endian.
/// ```
///  0       4     5     6       8           16        20        24        28        32
///  ┌───────┬─────┬─────┬───────┬───────────┬─────────┬─────────┬─────────┬─────────┬──────┐
///  │ magic │ ver │type │ flags │   epoch   │ request │ length  │ body    │ header  │ body │
///  │ SNWF  │ u8  │ u8  │ u16=0 │   u64     │ u32     │ u32     │ CRC32C  │ CRC32C  │      │
///  └───────┴─────┴─────┴───────┴───────────┴─────────┴─────────┴─────────┴─────────┴──────┘
///                                                                over 0..<28
/// ```
/// *epoch*: a number of the VM's identity. A fork gives each clone a new one, and both sides drop frames of any
/// other: a clone replays what lay in the guest's buffers at the fork. *request*: pairs an answer with its request,
/// 0 where there is nothing to pair. *length*: bytes of the body, at most `maximumBodyLength`.
/// The header's checksum is verified before any field is used, and the body's before the body is decoded.
public struct Frame: Equatable, Sendable {
  public static let magic: UInt32 = 0x4657_4E53  // "SNWF" as it lies in memory
  public static let version: UInt8 = 1
  public static let headerLength = 32
  /// 1 MiB of a clone's result, and room for the fields about it.
  public static let maximumBodyLength = (1 << 20) + (64 << 10)

  public var type: UInt8
  public var epoch: UInt64
  public var request: UInt32
  public var body: [UInt8]

  public init(type: UInt8, epoch: UInt64, request: UInt32, body: [UInt8]) {
    self.type = type
    self.epoch = epoch
    self.request = request
    self.body = body
  }
}

extension Frame {
  /// A message as a frame's parts; throws if a field exceeds its limit.
  public init(_ message: GuestMessage, epoch: UInt64, request: UInt32 = 0) throws(GuestWireError) {
    self.init(
      type: message.type.rawValue, epoch: epoch, request: request, body: try message.encodedBody())
  }

  /// The frame as it is sent. The body must not exceed `maximumBodyLength`, which holds for every encoded message.
  public func encoded() -> [UInt8] {
    precondition(body.count <= Frame.maximumBodyLength)
    var bytes: [UInt8] = []
    bytes.reserveCapacity(Frame.headerLength + body.count)
    bytes.append(littleEndian: Frame.magic)
    bytes.append(Frame.version)
    bytes.append(type)
    bytes.append(littleEndian: UInt16(0))
    bytes.append(littleEndian: epoch)
    bytes.append(littleEndian: request)
    bytes.append(littleEndian: UInt32(body.count))
    bytes.append(littleEndian: CRC32C.checksum(body))
    bytes.append(littleEndian: CRC32C.checksum(bytes))
    bytes.append(contentsOf: body)
    return bytes
  }
}

extension [UInt8] {
  package mutating func append<Number: FixedWidthInteger>(littleEndian number: Number) {
    Swift.withUnsafeBytes(of: number.littleEndian) { append(contentsOf: $0) }
  }
}
