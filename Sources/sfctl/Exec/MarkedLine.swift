import Foundation

/// Takes one line, which begins with a mark that nobody else writes, out of a stream of bytes that comes in pieces.
struct MarkedLine {
  private let mark: Data
  /// What may be the mark's beginning, or the line as far as it has come.
  private var held = Data()
  private var isWithin = false
  /// The line behind the mark, without its end; nil: it has not come.
  private(set) var line: Data?

  /// A line that does not end within this is not ours.
  private static let limit = 1 << 20

  init(_ mark: String) { self.mark = Data(mark.utf8) }

  /// Of a piece, and of what was held back before it, what is not the line.
  mutating func pass(_ piece: Data) -> Data {
    guard line == nil else { return piece }
    held += piece
    var passed = Data()
    if !isWithin {
      if let place = held.range(of: mark) {
        passed = Data(held[..<place.lowerBound])
        held = Data(held[place.upperBound...])
        isWithin = true
      } else {
        let kept = (1..<mark.count).last { held.count >= $0 && held.suffix($0) == mark.prefix($0) } ?? 0
        passed = Data(held.dropLast(kept))
        held = Data(held.suffix(kept))
      }
    }
    if isWithin, let end = held.firstIndex(of: UInt8(ascii: "\n")) {
      line = Data(held[..<end])
      isWithin = false
      passed += held[held.index(after: end)...]
      held = Data()
    } else if isWithin, held.count > Self.limit {
      passed += end()
    }
    return passed
  }

  /// Nothing more comes: what was held back.
  mutating func end() -> Data {
    defer {
      held = Data()
      isWithin = false
    }
    return isWithin ? mark + held : held
  }
}
