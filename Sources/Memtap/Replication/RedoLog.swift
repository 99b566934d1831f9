import Glibc
import GuestMemory
import LinuxSystem

/// What is to be written to a standby's page cache: whole pages, so that writing them again does no harm.
///
///     | magic 8 | sequence 8 | pages n 8 | runs of zeros r 8 | checkpoint's digest 32 | 0 … 4096 |
///     | n pages | n page numbers, 4 each | r × (first 4, count 4) |
///
/// It is `redo.new` while it is written. The rename to `redo` is the moment at which the standby becomes the new one:
/// whoever finds a `redo` writes it, whole. Not synced: it lies on the tmpfs of the pages.
final class RedoLog {
  private static let magic: UInt64 = 0x4f44_4552_4653_0001
  private static let headBytes = 4096
  static func path(_ directory: String) -> String { "\(directory)/redo" }
  private static func draft(_ directory: String) -> String { "\(directory)/redo.new" }

  let file: MemoryFile
  let mark: StandbyMark
  private(set) var numbers: [UInt32]
  private(set) var zeros: [PageRange]

  private init(_ file: MemoryFile, _ mark: StandbyMark, _ numbers: [UInt32], _ zeros: [PageRange]) {
    self.file = file
    self.mark = mark
    self.numbers = numbers
    self.zeros = zeros
  }

  // MARK: Writing

  static func begin(_ directory: String, _ mark: StandbyMark) throws(SystemError) -> RedoLog {
    RedoLog(try MemoryFile.create(draft(directory), bytes: 0), mark, [], [])
  }

  /// Pages one behind the other. ENOSPC: no memory is left.
  func append(_ pages: [UInt32], _ bytes: UnsafeRawPointer) throws(SystemError) {
    try write(bytes, pages.count * Page.bytes, at: offset(ofPage: numbers.count))
    numbers += pages
  }

  /// It is whole, and counts from now on.
  func commit(_ directory: String, zeros: [PageRange]) throws(SystemError) {
    self.zeros = zeros
    let tail = numbers + zeros.flatMap { [UInt32($0.lowerBound), UInt32($0.count)] }
    try write(tail, at: offset(ofPage: numbers.count))
    let counts: [UInt64] = [Self.magic, mark.sequence, UInt64(numbers.count), UInt64(zeros.count)]
    try write(counts, at: 0)
    try write(mark.digest, at: 32)
    let path = Self.path(directory)
    try systemCall("rename", subject: path) { Glibc.rename(Self.draft(directory), path) }
  }

  private func write<T>(_ values: [T], at offset: UInt64) throws(SystemError) {
    let result: Result<Void, SystemError> = values.withUnsafeBytes { bytes in
      guard let start = bytes.baseAddress else { return .success(()) }
      do throws(SystemError) { return .success(try write(start, bytes.count, at: offset)) } catch {
        return .failure(error)
      }
    }
    try result.get()
  }

  private func write(_ bytes: UnsafeRawPointer, _ count: Int, at offset: UInt64) throws(SystemError) {
    guard try file.write(at: offset, from: bytes, count: count) == count else {
      throw SystemError("pwrite", subject: "a redo log", errno: ENOSPC)
    }
  }

  private func offset(ofPage index: Int) -> UInt64 { UInt64(Self.headBytes + index * Page.bytes) }

  // MARK: Reading

  /// Nil: there is none.
  static func read(_ directory: String, pageCount: Int) throws(SystemError) -> RedoLog? {
    let path = path(directory)
    guard access(path, F_OK) == 0 else { return nil }
    let file = try MemoryFile.open(path)
    let damaged = SystemError("read", subject: path, errno: EINVAL)
    let counts = try numbers(file, at: 0, count: 4, UInt64.self)
    guard counts[0] == magic, counts[2] <= pageCount, counts[3] <= pageCount else { throw damaged }
    let digest = try numbers(file, at: 32, count: 32, UInt8.self)
    let (pages, runs) = (Int(counts[2]), Int(counts[3]))
    let tail = try numbers(
      file, at: UInt64(headBytes + pages * Page.bytes), count: pages + 2 * runs, UInt32.self)
    var zeros: [PageRange] = []
    for run in 0..<runs {
      let first = Int(tail[pages + 2 * run])
      zeros.append(first..<first + Int(tail[pages + 2 * run + 1]))
    }
    guard tail.prefix(pages).allSatisfy({ $0 < pageCount }), zeros.allSatisfy({ $0.upperBound <= pageCount })
    else { throw damaged }
    return RedoLog(
      file, StandbyMark(sequence: counts[1], digest: digest), Array(tail.prefix(pages)), zeros)
  }

  private static func numbers<T: FixedWidthInteger>(
    _ file: MemoryFile, at offset: UInt64, count: Int, _ type: T.Type
  ) throws(SystemError) -> [T] {
    var values = [T](repeating: 0, count: count)
    guard count > 0 else { return values }
    let result: Result<Void, SystemError> = values.withUnsafeMutableBytes { bytes in
      do throws(SystemError) {
        return .success(try file.read(at: offset, into: bytes.baseAddress!, count: bytes.count))
      } catch {
        return .failure(error)
      }
    }
    try result.get()
    return values
  }

  // MARK: Applying

  /// Memory for every page, before the commit: none of the writes to come can fail for lack of it.
  func reserve(in cache: MemoryFile) throws(SystemError) {
    var index = 0
    while index < numbers.count {
      let run = run(at: index)
      try cache.reserve(at: UInt64(run.lowerBound) * UInt64(Page.bytes), count: run.byteCount)
      index += run.count
    }
  }

  /// The pages from the one at `index` on that lie together, at most 64.
  func run(at index: Int) -> PageRange {
    var end = index + 1
    while end < numbers.count, end - index < 64, numbers[end] == numbers[end - 1] + 1 { end += 1 }
    let first = Int(numbers[index])
    return first..<first + end - index
  }

  /// Writes one run of pages; answers the index behind it.
  func apply(at index: Int, to cache: MemoryFile, _ states: PageStates) throws(SystemError) -> Int {
    let run = run(at: index)
    var outcome: Result<Void, SystemError> = .success(())
    withUnsafeTemporaryAllocation(byteCount: run.count * Page.bytes, alignment: 4096) { buffer in
      do throws(SystemError) {
        try file.read(at: offset(ofPage: index), into: buffer.baseAddress!, count: buffer.count)
        let at = UInt64(run.lowerBound) * UInt64(Page.bytes)
        guard try cache.write(at: at, from: buffer.baseAddress!, count: buffer.count) == buffer.count else {
          throw SystemError("pwrite", subject: "a standby", errno: ENOSPC)
        }
      } catch {
        outcome = .failure(error)
      }
    }
    try outcome.get()
    states.fill(run, .present)
    return index + run.count
  }

  func applyZeros(to cache: MemoryFile, _ states: PageStates) throws(SystemError) {
    for run in zeros {
      try cache.punchHole(at: UInt64(run.lowerBound) * UInt64(Page.bytes), count: run.byteCount)
      states.fill(run, .zero)
    }
  }

  /// It is in the standby, whole.
  func finish(_ directory: String) throws(SystemError) {
    let mark = mark
    try SnapshotFiles.changeManifest(directory) { $0.standby = mark }
    unlink(Self.path(directory))
  }
}
