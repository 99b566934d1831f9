import Foundation

/// Which pages came to a host, and why: the RAM from its first page to its last, row by row.
struct PageMapDrawing {
  /// As the wire has them, in the order in which they stand for a cell of several pages.
  enum Kind: UInt8, CaseIterable {
    case touched = 2
    case pushed = 4
    case prefetched = 3
    case saved = 6
    case origin = 1
    case missing = 0
    case zero = 5

    var meaning: String {
      switch self {
      case .touched: "touched: a fault here asked for it"
      case .pushed: "pushed in the background"
      case .prefetched: "came ahead of need, or because another host had asked"
      case .saved: "saved before a write of the parent"
      case .origin: "in the parent's memory here"
      case .missing: "not fetched"
      case .zero: "zero at the fork: nothing to fetch"
      }
    }
  }

  let host: String
  let pages: [UInt8]

  private static let columns = 256
  private static let rowsMax = 128
  private static let cell = 3.5

  func count(_ kind: Kind) -> Int { pages.count { $0 == kind.rawValue } }

  var svg: String {
    let perCell = max(1, (pages.count + Self.columns * Self.rowsMax - 1) / (Self.columns * Self.rowsMax))
    let cells = stride(from: 0, to: pages.count, by: perCell).map { first in
      Self.kind(of: pages[first..<min(first + perCell, pages.count)])
    }
    let rows = (cells.count + Self.columns - 1) / Self.columns
    var paths: [Kind: String] = [:]
    for row in 0..<rows {
      var column = 0
      let end = min(Self.columns, cells.count - row * Self.columns)
      while column < end {
        let kind = cells[row * Self.columns + column]
        var next = column + 1
        while next < end, cells[row * Self.columns + next] == kind { next += 1 }
        paths[kind, default: ""] += "M\(column) \(row)h\(next - column)v1H\(column)z"
        column = next
      }
    }
    let content = Kind.allCases.compactMap { kind in
      paths[kind].map {
        "<path d=\"\($0)\" class=\"page k\(kind.rawValue)\"><title>\(kind.meaning)</title></path>"
      }
    }
    let (width, height) = (Double(Self.columns) * Self.cell, Double(rows) * Self.cell)
    return "<svg viewBox=\"0 0 \(Self.columns) \(rows)\" width=\"\(Markup.number(width))\" "
      + "height=\"\(Markup.number(height))\" shape-rendering=\"crispEdges\" role=\"img\" "
      + "aria-label=\"Pages on \(Markup.escaped(host))\" xmlns=\"http://www.w3.org/2000/svg\">"
      + content.joined(separator: "\n") + "</svg>"
  }

  /// What matters most of several pages.
  private static func kind(of pages: ArraySlice<UInt8>) -> Kind {
    for kind in Kind.allCases where pages.contains(kind.rawValue) { return kind }
    return .missing
  }
}
