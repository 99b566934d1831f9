import Crypto
import Glibc
import LinuxSystem

/// A checkpoint in a file: made in place, and read after it was verified whole.
///
/// While it is being made the head is zeros, so that nobody takes it for one.
public final class CheckpointFile {
  public let descriptor: OwnedDescriptor
  public let path: String

  private init(_ descriptor: OwnedDescriptor, _ path: String) {
    self.descriptor = descriptor
    self.path = path
  }

  // MARK: Making

  /// Replaces what is there. The parts of disks and pages are to be appended by `PartWriter`, then `seal` ends it.
  public static func create(
    _ path: String, metadata: [UInt8], deviceState: [UInt8]
  ) throws -> (file: CheckpointFile, metadata: CheckpointHeader.Part, deviceState: CheckpointHeader.Part) {
    let file = try OwnedDescriptor.open(path, O_RDWR | O_CREAT | O_TRUNC, mode: 0o600)
    try [UInt8](repeating: 0, count: CheckpointHeader.bytes).withUnsafeBytes { try file.writeFully($0) }
    var parts: [CheckpointHeader.Part] = []
    var offset = UInt64(CheckpointHeader.bytes)
    for bytes in [metadata, deviceState] {
      try bytes.withUnsafeBytes { try file.writeFully($0) }
      parts.append(
        .init(offset: offset, length: UInt64(bytes.count), digest: Array(SHA256.hash(data: bytes))))
      offset += UInt64(bytes.count)
    }
    return (CheckpointFile(file, path), parts[0], parts[1])
  }

  public func seal(_ header: CheckpointHeader) throws {
    try systemCall("lseek") { lseek(descriptor.raw, 0, SEEK_SET) }
    try header.encode().withUnsafeBytes { try descriptor.writeFully($0) }
  }

  // MARK: Reading

  public static func open(_ path: String) throws -> CheckpointFile {
    CheckpointFile(try OwnedDescriptor.open(path, O_RDONLY), path)
  }

  public func header() throws -> CheckpointHeader {
    var bytes = [UInt8](repeating: 0, count: CheckpointHeader.bytes)
    guard try descriptor.size() >= UInt64(bytes.count) else {
      throw CheckpointError.sizes("it has no whole head")
    }
    try bytes.withUnsafeMutableBytes { try read(at: 0, into: $0) }
    return try CheckpointHeader.decode(bytes)
  }

  /// Compares every byte with the digests. Nothing of it may be used before.
  public func verify() throws -> CheckpointHeader {
    let header = try header()
    guard try descriptor.size() == header.totalBytes else {
      throw CheckpointError.sizes("it has not the length that its head says")
    }
    let parts = [
      ("its metadata", header.metadata), ("its device state", header.deviceState),
      ("its disks", header.disks), ("its pages", header.pages),
    ]
    for (name, part) in parts where try digest(of: part) != part.digest { throw CheckpointError.digest(name) }
    return header
  }

  private func digest(of part: CheckpointHeader.Part) throws -> [UInt8] {
    var hash = SHA256()
    var buffer = [UInt8](repeating: 0, count: 1 << 18)
    var done: UInt64 = 0
    while done < part.length {
      let count = Int(min(UInt64(buffer.count), part.length - done))
      try buffer.withUnsafeMutableBytes { bytes in
        let now = UnsafeMutableRawBufferPointer(rebasing: bytes[..<count])
        try read(at: part.offset + done, into: now)
        hash.update(bufferPointer: UnsafeRawBufferPointer(now))
      }
      done += UInt64(count)
    }
    return Array(hash.finalize())
  }

  /// A small part.
  public func contents(of part: CheckpointHeader.Part) throws -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: Int(part.length))
    try bytes.withUnsafeMutableBytes { try read(at: part.offset, into: $0) }
    return bytes
  }

  /// The pages of a checkpoint that was verified.
  public func pages(_ header: CheckpointHeader) -> PageStreamReader {
    stream(at: header.pages.offset, length: header.pages.length, pageCount: Int(header.ramBytes / 4096))
  }

  func stream(at offset: UInt64, length: UInt64, pageCount: Int) -> PageStreamReader {
    var offset = offset
    return PageStreamReader(pageCount: pageCount, length: length) { [self] buffer in
      try read(at: offset, into: buffer)
      offset += UInt64(buffer.count)
    }
  }

  func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws {
    var done = 0
    while done < buffer.count {
      let count = try systemCall("pread", subject: path) {
        pread(descriptor.raw, buffer.baseAddress! + done, buffer.count - done, off_t(offset) + off_t(done))
      }
      if count == 0 { throw CheckpointError.sizes("its file ends early") }
      done += count
    }
  }
}

/// Appends a part to a file and knows its digest.
public final class PartWriter {
  private let descriptor: OwnedDescriptor
  private var hash = SHA256()
  private let offset: UInt64
  private var length: UInt64 = 0
  private var buffer: [UInt8] = []
  private static let bufferBytes = 1 << 18

  public init(appendingTo path: String) throws {
    descriptor = try OwnedDescriptor.open(path, O_WRONLY | O_APPEND)
    offset = try descriptor.size()
    buffer.reserveCapacity(2 * Self.bufferBytes)
  }

  public func write(_ bytes: UnsafeRawBufferPointer) throws {
    buffer.append(contentsOf: bytes)
    if buffer.count >= Self.bufferBytes { try flush() }
  }

  public func finish() throws -> CheckpointHeader.Part {
    try flush()
    return .init(offset: offset, length: length, digest: Array(hash.finalize()))
  }

  private func flush() throws {
    try buffer.withUnsafeBytes {
      hash.update(bufferPointer: $0)
      try descriptor.writeFully($0)
    }
    length += UInt64(buffer.count)
    buffer.removeAll(keepingCapacity: true)
  }
}
