import Crypto

/// The head of a checkpoint: whose it is, what it follows, where its parts are.
///
///     0    8    10   12    16       32       40        48           80       88     96        288      320
///     | magic| v | 320 | flags| replica | sequence| base | base's digest| RAM | total| 4 parts | digest |
///
/// A part is offset (8), length (8) and SHA-256 (32); metadata, device state, disks, pages, in this order and without gaps
/// up to `total`. The digest is the SHA-256 of the 288 bytes before it: since those hold the parts' digests it is the whole
/// checkpoint's, and its name. Integers are little-endian.
public struct CheckpointHeader: Sendable, Equatable {
  public static let bytes = 320
  private static let magic: [UInt8] = Array("SNOWCKP".utf8) + [0x1a]
  private static let version: UInt16 = 2
  private static let signedBytes = 288

  public struct Part: Sendable, Equatable {
    public var offset: UInt64
    public var length: UInt64
    /// SHA-256.
    public var digest: [UInt8]
    public init(offset: UInt64, length: UInt64, digest: [UInt8]) {
      self.offset = offset
      self.length = length
      self.digest = digest
    }
  }

  /// 128 random bits: the standby of one VM on one host.
  public var replica: [UInt8]
  /// From 1.
  public var sequence: UInt64
  /// The checkpoint that it changes; 0: none, it is full.
  public var base: UInt64
  /// That one's digest; zeros of a full one.
  public var baseDigest: [UInt8]
  public var ramBytes: UInt64
  public var metadata: Part
  public var deviceState: Part
  /// Empty: the VM has none (`DisksWriter`).
  public var disks: Part
  public var pages: Part

  public var isFull: Bool { base == 0 }
  public var totalBytes: UInt64 { pages.offset + pages.length }
  public static let noDigest = [UInt8](repeating: 0, count: 32)

  public init(
    replica: [UInt8], sequence: UInt64, base: UInt64, baseDigest: [UInt8], ramBytes: UInt64, metadata: Part,
    deviceState: Part, disks: Part, pages: Part
  ) {
    self.replica = replica
    self.sequence = sequence
    self.base = base
    self.baseDigest = baseDigest
    self.ramBytes = ramBytes
    self.metadata = metadata
    self.deviceState = deviceState
    self.disks = disks
    self.pages = pages
  }

  public func encode() -> [UInt8] {
    precondition(replica.count == 16 && baseDigest.count == 32)
    var bytes = Self.magic
    bytes.reserveCapacity(Self.bytes)
    bytes.append(little: Self.version)
    bytes.append(little: UInt16(Self.bytes))
    bytes.append(little: UInt32(0))
    bytes += replica
    bytes.append(little: sequence)
    bytes.append(little: base)
    bytes += baseDigest
    bytes.append(little: ramBytes)
    bytes.append(little: totalBytes)
    for part in [metadata, deviceState, disks, pages] {
      bytes.append(little: part.offset)
      bytes.append(little: part.length)
      bytes += part.digest
    }
    return bytes + Array(SHA256.hash(data: bytes))
  }

  /// Of the checkpoint as a whole.
  public var digest: [UInt8] { Array(encode().suffix(32)) }

  /// The digest is checked before anything else is read.
  public static func decode(_ bytes: some Collection<UInt8>) throws(CheckpointError) -> CheckpointHeader {
    let bytes = Array(bytes)
    guard bytes.count >= Self.bytes else { throw .sizes("its head has \(bytes.count) bytes") }
    guard Array(bytes[0..<8]) == magic else { throw .format("it does not begin like one") }
    guard bytes.little(at: 8, as: UInt16.self) == version else { throw .format("its version is another") }
    guard bytes.little(at: 10, as: UInt16.self) == UInt16(Self.bytes) else {
      throw .format("its head has another size")
    }
    guard Array(SHA256.hash(data: bytes[0..<signedBytes])) == Array(bytes[signedBytes..<Self.bytes]) else {
      throw .digest("its head")
    }
    var parts: [Part] = []
    var end = UInt64(Self.bytes)
    for index in 0..<4 {
      let at = 96 + index * 48
      let part = Part(
        offset: bytes.little(at: at, as: UInt64.self), length: bytes.little(at: at + 8, as: UInt64.self),
        digest: Array(bytes[at + 16..<at + 48]))
      guard part.offset == end, part.length <= 1 << 50 else {
        throw .sizes("its parts do not follow each other")
      }
      end += part.length
      parts.append(part)
    }
    guard bytes.little(at: 88, as: UInt64.self) == end else { throw .sizes("its total is another") }
    let header = CheckpointHeader(
      replica: Array(bytes[16..<32]), sequence: bytes.little(at: 32, as: UInt64.self),
      base: bytes.little(at: 40, as: UInt64.self), baseDigest: Array(bytes[48..<80]),
      ramBytes: bytes.little(at: 80, as: UInt64.self), metadata: parts[0], deviceState: parts[1],
      disks: parts[2], pages: parts[3])
    guard header.sequence > header.base, header.ramBytes > 0, header.ramBytes % 4096 == 0,
      header.ramBytes <= 16 << 40, header.metadata.length <= 1 << 20, header.deviceState.length <= 65 << 20
    else { throw .sizes("its numbers are impossible") }
    // What is signed and not read could otherwise differ.
    guard header.encode() == Array(bytes[0..<Self.bytes]) else { throw .format("it holds what is not known") }
    return header
  }
}

extension [UInt8] {
  mutating func append(little value: some FixedWidthInteger) {
    Swift.withUnsafeBytes(of: value.littleEndian) { append(contentsOf: $0) }
  }

  /// The caller has checked that it is there.
  func little<T: FixedWidthInteger>(at offset: Int, as type: T.Type) -> T {
    withUnsafeBytes { T(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: T.self)) }
  }
}
