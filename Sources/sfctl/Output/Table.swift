/// Columns for a person: a heading, then rows, each column as wide as its widest cell.
struct Table {
  private var rows: [[String]]

  init(_ headings: String...) { rows = [headings] }

  /// An empty cell is shown as a dash.
  mutating func add(_ cells: String...) { rows.append(cells.map { $0.isEmpty ? "-" : $0 }) }

  var isEmpty: Bool { rows.count == 1 }

  var text: String { lines.joined(separator: "\n") }

  var lines: [String] {
    let widths = rows[0].indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
    return rows.map { row in
      var line = ""
      for (column, cell) in row.enumerated() {
        line += cell
        if column < row.count - 1 {
          line += String(repeating: " ", count: widths[column] - cell.count + 2)
        }
      }
      return line
    }
  }
}
