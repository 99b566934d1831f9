/// The two codings of which pages of RAM exist.
///
/// Runs: for each run two variable-length integers (7 bits a byte, low bits first, the high bit says that more
/// follow): the gap since the end of the run before, and the run's length less 1. The gap is at least 1 but for
/// the first run, so there is one coding only for a set of pages.
///
/// Bitmap: a bit a page, low bit first, the unused bits of the last byte 0.
enum PageRunCoding {
  typealias PageRun = VMDescriptor.PageRun

  /// Requires ascending, separate runs within `pages`.
  static func encodeRuns(_ runs: [PageRun], pages: UInt64) throws(DescriptorError) -> [UInt8] {
    var writer = ByteWriter()
    var end: UInt64 = 0
    for (index, run) in runs.enumerated() {
      guard run.count > 0, run.first >= end, run.first > end || index == 0 else {
        throw .malformed("page runs are not ascending and apart at page \(run.first)")
      }
      guard run.first < pages, run.count <= pages - run.first else {
        throw .sizes("a page run ends after the last of \(pages) pages")
      }
      writer.append(varint: run.first - end)
      writer.append(varint: run.count - 1)
      end = run.first + run.count
    }
    return writer.bytes
  }

  static func decodeRuns(_ reader: inout ByteReader, pages: UInt64) throws(DescriptorError) -> [PageRun] {
    var runs: [PageRun] = []
    // Two bytes a run at least: what is reserved is bounded by what is there.
    runs.reserveCapacity(min(reader.remaining / 2, Int(clamping: pages / 2 + 1)))
    var end: UInt64 = 0
    while reader.remaining > 0 {
      let gap = try reader.varint()
      let countLess1 = try reader.varint()
      guard gap > 0 || runs.isEmpty else { throw .malformed("two page runs touch") }
      guard gap < pages - end, countLess1 < pages - end - gap else {
        throw .sizes("a page run ends after the last of \(pages) pages")
      }
      runs.append(PageRun(first: end + gap, count: countLess1 + 1))
      end += gap + countLess1 + 1
    }
    return runs
  }

  static func bitmapBytes(pages: UInt64) -> UInt64 { (pages + 7) / 8 }

  /// Requires runs that `encodeRuns` has accepted.
  static func encodeBitmap(_ runs: [PageRun], pages: UInt64) -> [UInt8] {
    var bitmap = [UInt8](repeating: 0, count: Int(bitmapBytes(pages: pages)))
    for run in runs {
      for page in run.first..<(run.first + run.count) {
        bitmap[Int(page / 8)] |= 1 << UInt8(page % 8)
      }
    }
    return bitmap
  }

  static func decodeBitmap(_ reader: inout ByteReader, pages: UInt64) throws(DescriptorError) -> [PageRun] {
    guard UInt64(reader.remaining) == bitmapBytes(pages: pages) else {
      throw .sizes("a bitmap of \(reader.remaining) bytes for \(pages) pages")
    }
    let bitmap = try reader.bytes(reader.remaining)
    var runs: [PageRun] = []
    var first: UInt64?
    var page: UInt64 = 0
    for byte in bitmap {
      for bit in 0..<8 as Range<UInt8> {
        let exists = byte >> bit & 1 == 1
        if exists, page >= pages { throw .malformed("the page bitmap has a bit after the last page") }
        if exists, first == nil { first = page }
        if !exists, let start = first {
          runs.append(PageRun(first: start, count: page - start))
          first = nil
        }
        page += 1
      }
    }
    if let start = first { runs.append(PageRun(first: start, count: pages - start)) }
    return runs
  }
}
