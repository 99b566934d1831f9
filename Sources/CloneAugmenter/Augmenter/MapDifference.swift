/// What leads from one memory map of a process to another.
package struct MapDifference: Sendable {
  package var removed: [Range<UInt64>] = []
  /// Where nothing was.
  package var added: [Mapping] = []
  /// Where something else was: the old has to go first.
  package var replaced: [Mapping] = []
  /// The same memory under another protection.
  package var protected: [Mapping] = []
  /// Bytes at the low end of the stack that were not there.
  package var stackGrowth: Range<UInt64>?

  /// `breakBefore`, `breakAfter`: the program breaks, whose memory is not listed.
  package init(
    from before: [Mapping], to after: [Mapping], breakBefore: UInt64, breakAfter: UInt64
  ) {
    var bounds: [UInt64] = []
    for mapping in before { bounds += [mapping.start, mapping.end] }
    for mapping in after { bounds += [mapping.start, mapping.end] }
    bounds.sort()
    var (old, new) = (0, 0)
    for index in bounds.indices.dropLast() where bounds[index] < bounds[index + 1] {
      let range = bounds[index]..<bounds[index + 1]
      while old < before.count, before[old].end <= range.lowerBound { old += 1 }
      while new < after.count, after[new].end <= range.lowerBound { new += 1 }
      let was = old < before.count && before[old].start <= range.lowerBound ? before[old] : nil
      let isNow = new < after.count && after[new].start <= range.lowerBound ? after[new] : nil
      note(
        range, was, isNow, (Self.pageEnd(breakBefore), Self.pageEnd(breakAfter)))
    }
  }

  package var isEmpty: Bool {
    removed.isEmpty && added.isEmpty && replaced.isEmpty && protected.isEmpty && stackGrowth == nil
  }

  private mutating func note(
    _ range: Range<UInt64>, _ was: Mapping?, _ isNow: Mapping?, _ breaks: (before: UInt64, after: UInt64)
  ) {
    switch (was, isNow) {
    case (nil, nil): break
    case (let was?, nil):
      if was.kind == .heap, range.lowerBound >= breaks.after { return }
      if let last = removed.last, last.upperBound == range.lowerBound {
        removed[removed.count - 1] = last.lowerBound..<range.upperBound
      } else {
        removed.append(range)
      }
    case (nil, let isNow?):
      if isNow.kind == .heap, range.lowerBound >= breaks.before { return }
      if isNow.kind == .stack, range.upperBound < isNow.end {
        stackGrowth = range
      } else {
        Self.append(isNow.cut(to: range), to: &added)
      }
    case (let was?, let isNow?):
      if !was.hasBacking(of: isNow) {
        Self.append(isNow.cut(to: range), to: &replaced)
      } else if was.protection != isNow.protection {
        Self.append(isNow.cut(to: range), to: &protected)
      }
    }
  }

  private static func append(_ piece: Mapping, to list: inout [Mapping]) {
    if let last = list.last, last.end == piece.start, last.hasBacking(of: piece),
      last.protection == piece.protection
    {
      list[list.count - 1].end = piece.end
    } else {
      list.append(piece)
    }
  }

  package static func pageEnd(_ address: UInt64) -> UInt64 { (address &+ 4095) & ~4095 }
}
