import Glibc
import GuestMemory
import LinuxSystem

/// What a checkpoint says of disks: of each, in the VM's order, what its pages of 4 KiB have become.
///
///     | pages of disk 1, of disk 2 … as by PageStreamWriter | n × (disk's bytes 8, length of its pages 8) | n 4 |
///
/// Pages go whole, never as changes: what they were is nowhere looked at. Of a disk that is no multiple of 4 KiB the last
/// page ends with zeros. Without disks the part is empty.
public final class DisksWriter {
  /// A page has a number of 32 bits.
  public static let diskBytesMax: UInt64 = 1 << 44
  static let disksMax = 16

  private let part: PartWriter
  private var length: UInt64 = 0
  private var table: [(bytes: UInt64, length: UInt64)] = []

  public init(_ part: PartWriter) { self.part = part }

  /// The next disk, of so many bytes, at most `diskBytesMax`. `body` names its pages.
  public func add(diskBytes: UInt64, _ body: (PageStreamWriter) throws -> Void) throws {
    precondition(diskBytes <= Self.diskBytesMax && table.count < Self.disksMax)
    let before = length
    let writer = PageStreamWriter { [self] bytes in
      length += UInt64(bytes.count)
      try part.write(bytes)
    }
    try body(writer)
    try writer.finish()
    table.append((diskBytes, length - before))
  }

  public func finish() throws -> CheckpointHeader.Part {
    var bytes: [UInt8] = []
    for disk in table {
      bytes.append(little: disk.bytes)
      bytes.append(little: disk.length)
    }
    if !table.isEmpty { bytes.append(little: UInt32(table.count)) }
    try bytes.withUnsafeBytes { try part.write($0) }
    return try part.finish()
  }
}

/// A disk in a checkpoint that was verified.
public struct CheckpointDisk {
  public var bytes: UInt64
  let file: CheckpointFile
  let offset: UInt64
  let length: UInt64

  private var pages: PageStreamReader {
    file.stream(at: offset, length: length, pageCount: Int((bytes + 4095) / 4096))
  }

  /// Makes a file the disk of a full checkpoint: raw, with holes where it is zeros. Replaces what is there.
  public func create(_ path: String) throws {
    let disk = try MemoryFile.create(path, bytes: bytes)
    try write(to: disk, from: pages)
  }

  /// Takes room for all that `apply` will write; the disk stays as it is. Throws if the file is of another size.
  public func reserve(in path: String) throws {
    let disk = try open(path)
    let pages = pages
    while let block = try pages.nextBlock() {
      try forEachRun(of: block) { range, _ in
        try disk.reserve(at: range.lowerBound, count: range.upperBound - range.lowerBound)
      }
    }
    _ = try pages.zeroRuns()
  }

  /// Makes the disk of the checkpoint's base that of the checkpoint. Doing so again does no harm, also if it was done by
  /// half.
  public func apply(to path: String) throws { try write(to: try open(path), from: pages) }

  private func open(_ path: String) throws -> MemoryFile {
    let disk = try MemoryFile.open(path)
    guard try disk.descriptor.size() == bytes else {
      throw CheckpointError.sizes("a disk of it has another size")
    }
    return disk
  }

  private func write(to disk: MemoryFile, from pages: PageStreamReader) throws {
    while let block = try pages.nextBlock() {
      try forEachRun(of: block) { range, start in
        let count = Int(range.upperBound - range.lowerBound)
        guard try disk.write(at: range.lowerBound, from: start, count: count) == count else {
          throw SystemError("pwrite", subject: "a standby's disk", errno: ENOSPC)
        }
      }
    }
    for run in try pages.zeroRuns() {
      let range = bytes(of: run)
      try disk.punchHole(at: range.lowerBound, count: range.upperBound - range.lowerBound)
    }
  }

  /// Pages that lie together, as bytes of the disk, and where they stand in the block.
  private func forEachRun(
    of block: PageStreamReader.Block, _ body: (Range<UInt64>, UnsafeRawPointer) throws -> Void
  ) throws {
    guard block.changes == 0 else { throw CheckpointError.sizes("a disk has changes") }
    try block.forEachRun { run, start in try body(bytes(of: run), start) }
  }

  private func bytes(of run: PageRange) -> Range<UInt64> {
    let begin = UInt64(run.lowerBound) * UInt64(Page.bytes)
    return begin..<min(bytes, begin + UInt64(run.count * Page.bytes))
  }
}

extension CheckpointFile {
  /// The disks of a checkpoint that was verified, in the VM's order.
  public func disks(_ header: CheckpointHeader) throws -> [CheckpointDisk] {
    let part = header.disks
    if part.length == 0 { return [] }
    func number<T: FixedWidthInteger>(at offset: UInt64, as type: T.Type) throws -> T {
      var value = T.zero
      try withUnsafeMutableBytes(of: &value) { try read(at: offset, into: $0) }
      return T(littleEndian: value)
    }
    let malformed = CheckpointError.sizes("its disks do not fill their part")
    guard part.length >= 4 else { throw malformed }
    let count = try number(at: part.offset + part.length - 4, as: UInt32.self)
    let tableBytes = 4 + 16 * UInt64(count)
    guard count > 0, count <= DisksWriter.disksMax, tableBytes <= part.length else { throw malformed }
    let table = part.offset + part.length - tableBytes
    var disks: [CheckpointDisk] = []
    var offset = part.offset
    for index in 0..<UInt64(count) {
      let disk = CheckpointDisk(
        bytes: try number(at: table + 16 * index, as: UInt64.self), file: self, offset: offset,
        length: try number(at: table + 16 * index + 8, as: UInt64.self))
      guard disk.bytes > 0, disk.bytes <= DisksWriter.diskBytesMax, disk.length <= table - offset else {
        throw malformed
      }
      disks.append(disk)
      offset += disk.length
    }
    guard offset == table else { throw malformed }
    return disks
  }
}
