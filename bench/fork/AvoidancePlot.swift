import Foundation

/// Figure 4(b) as an SVG: a panel for each number of clones and each figure, a bar for each configuration.
struct AvoidancePlot {
  let columns: [AvoidanceBench.PlotColumn]

  private struct Figure {
    var title: String
    /// A logarithmic axis.
    var isLogarithmic: Bool
    var value: (AvoidanceBench.PlotColumn) -> Double
    /// A line across the bar.
    var mark: ((AvoidanceBench.PlotColumn) -> Double)?
    var text: (Double) -> String
  }

  private var figures: [Figure] {
    [
      Figure(title: "pages requested", isLogarithmic: true, value: \.requests, mark: nil, text: Self.count),
      Figure(title: "pages sent", isLogarithmic: true, value: \.served, mark: nil, text: Self.count),
      Figure(
        title: "MB sent (line: 2 % of a clone's footprint)", isLogarithmic: true,
        value: { $0.sentBytes / 1e6 },
        mark: { Double($0.taskMib) * 1.048576 * 0.02 }, text: Self.count),
      Figure(
        title: "seconds (line: all pages on the host)", isLogarithmic: false, value: { $0.taskUs / 1e6 },
        mark: { $0.hereUs / 1e6 }, text: { String(format: "%.1f", $0) }),
    ]
  }
  private static func count(_ value: Double) -> String {
    value >= 10_000
      ? String(format: "%.0fk", value / 1000) : String(format: value < 10 ? "%.1f" : "%.0f", value)
  }

  private static let (width, height, gap, left, top) = (330.0, 170.0, 60.0, 70.0, 60.0)
  private static let colours = ["#b0413e", "#e08e79", "#2f6690", "#81c3d7", "#3a7d44", "#9dc183"]

  var svg: String {
    let names = ordered(columns.map(\.configuration.name))
    let shapes = ordered(columns.map(\.shape))
    let totalWidth = Self.left + Double(shapes.count) * (Self.width + Self.gap)
    let totalHeight = Self.top + Double(figures.count) * (Self.height + Self.gap) + 30
    var parts = [
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 \(totalWidth) \(totalHeight)\" "
        + "font-family=\"sans-serif\" font-size=\"12\"><rect width=\"100%\" height=\"100%\" fill=\"white\"/>"
    ]
    for (index, name) in names.enumerated() {
      let x = Self.left + Double(index % 3) * 330
      let y = 14 + Double(index / 3) * 18
      parts.append(rectangle(x, y - 10, 12, 12, colour(index)))
      parts.append(text(x + 18, y, name))
    }
    for (row, figure) in figures.enumerated() {
      for (column, shape) in shapes.enumerated() {
        let x = Self.left + Double(column) * (Self.width + Self.gap)
        let y = Self.top + Double(row) * (Self.height + Self.gap) + 24
        let title = "\(shape): \(figure.title)"
        parts.append(text(x, y - 8, title, bold: true))
        parts += panel(figure, columns.filter { $0.shape == shape }, names, x, y)
      }
    }
    return (parts + ["</svg>\n"]).joined(separator: "\n")
  }

  private func panel(
    _ figure: Figure, _ columns: [AvoidanceBench.PlotColumn], _ names: [String], _ x: Double, _ y: Double
  ) -> [String] {
    let values = columns.map(figure.value) + columns.compactMap { figure.mark?($0) }
    let most = max(values.max() ?? 1, 1)
    let least = figure.isLogarithmic ? max(1, (values.filter { $0 > 0 }.min() ?? 1) / 2) : 0
    func level(_ value: Double) -> Double {
      let part =
        figure.isLogarithmic
        ? log10(max(value, least) / least) / max(log10(most / least), 0.3) : value / most
      return y + Self.height - part * (Self.height - 16)
    }
    let base = y + Self.height
    var parts = [
      "<path d=\"M\(x) \(y)V\(base)H\(x + Self.width)\" fill=\"none\" stroke=\"#888\"/>"
    ]
    if figure.isLogarithmic {
      for power in 0...9 where pow(10, Double(power)) >= least && pow(10, Double(power)) <= most {
        let value = pow(10, Double(power))
        parts.append(text(x - 6, level(value) + 4, figure.text(value), anchor: "end"))
        parts.append(
          "<path d=\"M\(x) \(level(value))H\(x + Self.width)\" stroke=\"#ddd\"/>")
      }
    }
    let step = Self.width / Double(max(columns.count, 1))
    for (index, column) in columns.enumerated() {
      let value = figure.value(column)
      let left = x + Double(index) * step + 6
      let at = level(value)
      parts.append(
        rectangle(left, at, step - 12, base - at, colour(names.firstIndex(of: column.configuration.name)!)))
      parts.append(text(left + (step - 12) / 2, at - 4, figure.text(value), anchor: "middle"))
      if let mark = figure.mark?(column) {
        parts.append(
          "<path d=\"M\(left - 4) \(level(mark))h\(step - 4)\" stroke=\"black\" stroke-width=\"2\"/>")
      }
    }
    return parts
  }

  private func ordered(_ texts: [String]) -> [String] {
    texts.reduce(into: []) { if !$0.contains($1) { $0.append($1) } }
  }

  private func colour(_ index: Int) -> String { Self.colours[index % Self.colours.count] }

  private func rectangle(_ x: Double, _ y: Double, _ width: Double, _ height: Double, _ fill: String)
    -> String
  {
    "<rect x=\"\(x)\" y=\"\(y)\" width=\"\(width)\" height=\"\(max(height, 0.5))\" fill=\"\(fill)\"/>"
  }

  private func text(
    _ x: Double, _ y: Double, _ text: String, anchor: String = "start", bold: Bool = false
  ) -> String {
    "<text x=\"\(x)\" y=\"\(y)\" text-anchor=\"\(anchor)\"\(bold ? " font-weight=\"bold\"" : "")>\(text)</text>"
  }
}
