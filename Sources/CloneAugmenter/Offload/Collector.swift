import Augmenter
import CTrace
import Glibc

/// A program and a copy of it as it was, which never runs: what differs has changed.
struct ProgramChange {
  var program: Tracee
  var base: Tracee
  var mappingsBefore: [Mapping]
  /// Of the program as it is.
  var state: BlockState
}

/// Finds the pages that a program has changed and writes them and its state as a result.
final class Collector {
  private static let present: UInt64 = 1 << 63
  private static let swapped: UInt64 = 1 << 62
  /// A page of the file, or shared.
  private static let fileBacked: UInt64 = 1 << 61
  private static let frame: UInt64 = (1 << 55) - 1
  /// Pages looked at and read at a time.
  private static let batch = 512

  private let change: ProgramChange
  private let withBefore: Bool
  private var writer: ResultStream.Writer
  private var records: PageRecordWriter
  private let now: UnsafeMutableRawPointer
  private let before: UnsafeMutableRawPointer

  init(_ change: ProgramChange, withBefore: Bool, writer: ResultStream.Writer) {
    self.change = change
    self.withBefore = withBefore
    self.writer = writer
    records = PageRecordWriter(withBefore: withBefore)
    now = .allocate(byteCount: Self.batch * PageRecords.pageSize, alignment: 4096)
    before = .allocate(byteCount: Self.batch * PageRecords.pageSize, alignment: 4096)
  }

  deinit {
    now.deallocate()
    before.deallocate()
  }

  /// The collecting began at `begin`. `lie`: a test's fault, and of which kind.
  func collect(since begin: UInt64, lie kind: UInt64? = nil) throws {
    var fresh = MapDifference(
      from: change.mappingsBefore, to: change.state.mappings, breakBefore: 1 << 62, breakAfter: 1 << 62)
    fresh.added += fresh.replaced
    fresh.added.sort { $0.start < $1.start }
    for mapping in change.state.mappings where !mapping.isShared {
      for (range, isFresh) in Self.pieces(of: mapping, fresh.added) {
        try scan(range, isFresh: isFresh, isFile: mapping.kind == .file)
      }
    }
    var state = change.state
    state.collectMicroseconds = monotonicMicroseconds() - begin
    var body = state.encoded()
    if let kind { lie(kind, &body) }
    if records.count > 0 { writer.section(.pages, records.take()) }
    writer.section(.state, body)
    writer.finish()
  }

  /// A test's fault: what no honest clone would say, under the right seal.
  private func lie(_ kind: UInt64, _ body: inout [UInt8]) {
    switch kind {
    case 0: body.removeLast(8)
    case 1: writer.section(.pages, [UInt8](repeating: 0xff, count: 64))
    default:
      var outside = PageRecordWriter(withBefore: withBefore)
      let page = UnsafeMutableRawPointer.allocate(byteCount: PageRecords.pageSize, alignment: 4096)
      page.initializeMemory(as: UInt8.self, repeating: 0xaa, count: PageRecords.pageSize)
      _ = outside.append(address: 0x1000, before: nil, now: page)
      writer.section(.pages, outside.take())
    }
  }

  /// The mapping in parts that were there before, and parts that were not.
  private static func pieces(of mapping: Mapping, _ fresh: [Mapping]) -> [(Range<UInt64>, Bool)] {
    var pieces: [(Range<UInt64>, Bool)] = []
    var at = mapping.start
    for piece in fresh where piece.end > mapping.start && piece.start < mapping.end {
      let (start, end) = (max(piece.start, mapping.start), min(piece.end, mapping.end))
      if start > at { pieces.append((at..<start, false)) }
      pieces.append((start..<end, true))
      at = end
    }
    if at < mapping.end { pieces.append((at..<mapping.end, false)) }
    return pieces
  }

  // MARK: pages

  private func scan(_ range: Range<UInt64>, isFresh: Bool, isFile: Bool) throws {
    let mapsNow = open("/proc/\(change.program.pid)/pagemap", O_RDONLY | O_CLOEXEC)
    let mapsBefore = open("/proc/\(change.base.pid)/pagemap", O_RDONLY | O_CLOEXEC)
    defer {
      close(mapsNow)
      close(mapsBefore)
    }
    var entriesNow = [UInt64](repeating: 0, count: 8192)
    var entriesBefore = entriesNow
    var at = range.lowerBound
    while at < range.upperBound {
      let count = Int(min(8192, (range.upperBound - at) / 4096))
      guard pread(mapsNow, &entriesNow, count * 8, off_t(at / 512)) == count * 8 else {
        throw SystemError("read pagemap")
      }
      let isThere = !isFresh && pread(mapsBefore, &entriesBefore, count * 8, off_t(at / 512)) == count * 8
      if !isThere { for index in 0..<count { entriesBefore[index] = 0 } }
      try compare(at, count, entriesNow, entriesBefore, isFresh: isFresh, isFile: isFile)
      at += UInt64(count * 4096)
    }
  }

  private func compare(
    _ start: UInt64, _ count: Int, _ entriesNow: [UInt64], _ entriesBefore: [UInt64], isFresh: Bool,
    isFile: Bool
  ) throws {
    var index = 0
    while index < count {
      let kind = Self.kind(entriesNow[index], entriesBefore[index])
      let first = index
      repeat {
        index += 1
      } while index < count && Self.kind(entriesNow[index], entriesBefore[index]) == kind
        && (kind != .changed || index - first < Self.batch)
      let address = start + UInt64(first * 4096)
      switch kind {
      case .same: break
      case .dropped: records.appendDropped(address: address, count: index - first)
      case .changed: try send(address, index - first, isFresh: isFresh, isFile: isFile)
      }
    }
  }

  private enum Kind { case same, changed, dropped }

  @inline(__always)
  private static func kind(_ now: UInt64, _ before: UInt64) -> Kind {
    let wasOwn = before & (present | swapped) != 0 && before & fileBacked == 0
    guard now & (present | swapped) != 0, now & fileBacked == 0 else { return wasOwn ? .dropped : .same }
    return now & present != 0 && before & present != 0 && now & frame == before & frame && now & frame != 0
      ? .same : .changed
  }

  private func send(_ address: UInt64, _ count: Int, isFresh: Bool, isFile: Bool) throws {
    let bytes = count * PageRecords.pageSize
    guard change.program.read(address, into: UnsafeMutableRawBufferPointer(start: now, count: bytes)) else {
      throw SystemError("read the program's memory")
    }
    // In a mapping of before, the copy has what home has, be it the file's.
    let hasBefore =
      !isFresh && change.base.read(address, into: UnsafeMutableRawBufferPointer(start: before, count: bytes))
    if !isFresh, !hasBefore { throw SystemError("read the program's memory as it was") }
    for page in 0..<count {
      let place = address + UInt64(page * 4096)
      let new = now + page * 4096
      if isFresh, isFile {
        records.appendWhole(address: place, new)
      } else {
        _ = records.append(address: place, before: hasBefore ? before + page * 4096 : nil, now: new)
      }
      if records.count >= ResultStream.pieceBytes { writer.section(.pages, records.take()) }
    }
  }
}
