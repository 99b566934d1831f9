/// How a figure grew on each host, by time since the snapshot came there.
struct CurveDrawing {
  struct Curve {
    var name: String
    /// Of its colour.
    var index: Int
    /// Microseconds, and the figure then.
    var points: [(time: UInt64, value: UInt64)]
  }

  let label: String
  let curves: [Curve]
  /// A value as the axis has it, and what is 1 there.
  let text: (UInt64) -> String
  var unit = 1.0

  private static let (left, top, width, height) = (80.0, 12.0, 900.0, 240.0)
  private static let bottom = 34.0
  static let styles = 8

  var svg: String {
    let last = max(curves.compactMap { $0.points.last?.time }.max() ?? 0, 1)
    let most = max(curves.flatMap { $0.points.map(\.value) }.max() ?? 0, 1)
    let right = Self.width - 110
    func x(_ time: UInt64) -> Double { Self.left + Double(time) / Double(last) * (right - Self.left) }
    func y(_ value: UInt64) -> Double {
      Self.height - Self.bottom - Double(value) / Double(most) * (Self.height - Self.bottom - Self.top)
    }
    var parts: [String] = []
    for value in AxisSteps(upTo: Double(most) / unit, about: 5).values.map({ UInt64($0 * unit) }) {
      parts.append(Markup.line(Self.left, y(value), right, y(value), style: "grid"))
      parts.append(Markup.text(Self.left - 6, y(value) + 4, text(value), anchor: "end", style: "small"))
    }
    for time in AxisSteps(upTo: Double(last)).values.map({ UInt64($0) }) {
      parts.append(Markup.line(x(time), Self.top, x(time), Self.height - Self.bottom, style: "grid"))
      parts.append(
        Markup.text(
          x(time), Self.height - Self.bottom + 16, Units.microseconds(time), anchor: "middle", style: "small")
      )
    }
    for (index, curve) in curves.enumerated() {
      let style = "curve c\(curve.index % Self.styles)"
      // Between two samples nothing is known to have come: steps, not slopes.
      var path = "M\(Markup.number(x(0))) \(Markup.number(y(0)))"
      for point in curve.points {
        path += "H\(Markup.number(x(point.time)))V\(Markup.number(y(point.value)))"
      }
      parts.append(
        "<path d=\"\(path)\" class=\"\(style)\"><title>\(Markup.escaped(curve.name))</title></path>")
      let line = Self.top + 10 + Double(index) * 16
      parts.append(Markup.line(right + 12, line - 4, right + 30, line - 4, style: style))
      parts.append(Markup.text(right + 36, line, curve.name, style: "small"))
    }
    let height = max(Self.height, Self.top + 20 + Double(curves.count) * 16)
    return Markup.drawing(width: Self.width, height: height, label: label, parts)
  }
}
