/// Text as HTML and SVG have it.
enum Markup {
  static func escaped(_ text: String) -> String {
    var result = ""
    for character in text {
      switch character {
      case "&": result += "&amp;"
      case "<": result += "&lt;"
      case ">": result += "&gt;"
      case "\"": result += "&quot;"
      default: result.append(character)
      }
    }
    return result
  }

  /// Two digits after the point are finer than a screen.
  static func number(_ value: Double) -> String {
    let hundredths = Int((value * 100).rounded())
    let (whole, rest) = hundredths.quotientAndRemainder(dividingBy: 100)
    if rest == 0 { return "\(whole)" }
    return "\(hundredths < 0 && whole == 0 ? "-" : "")\(whole).\(abs(rest) < 10 ? "0" : "")\(abs(rest))"
  }

  static func text(_ x: Double, _ y: Double, _ text: String, anchor: String = "start", style: String = "")
    -> String
  {
    let kind = style.isEmpty ? "" : " class=\"\(style)\""
    return
      "<text x=\"\(number(x))\" y=\"\(number(y))\" text-anchor=\"\(anchor)\"\(kind)>\(escaped(text))</text>"
  }

  static func rectangle(
    _ x: Double, _ y: Double, _ width: Double, _ height: Double, style: String, title: String = ""
  ) -> String {
    let inside = title.isEmpty ? "" : "<title>\(escaped(title))</title>"
    return "<rect x=\"\(number(x))\" y=\"\(number(y))\" width=\"\(number(max(width, 0.5)))\" "
      + "height=\"\(number(height))\" class=\"\(style)\">\(inside)</rect>"
  }

  static func line(_ x1: Double, _ y1: Double, _ x2: Double, _ y2: Double, style: String) -> String {
    "<line x1=\"\(number(x1))\" y1=\"\(number(y1))\" x2=\"\(number(x2))\" y2=\"\(number(y2))\" class=\"\(style)\"/>"
  }

  static func drawing(width: Double, height: Double, label: String, _ content: [String]) -> String {
    "<svg viewBox=\"0 0 \(number(width)) \(number(height))\" width=\"\(number(width))\" role=\"img\" "
      + "aria-label=\"\(escaped(label))\" xmlns=\"http://www.w3.org/2000/svg\">\n"
      + content.joined(separator: "\n") + "\n</svg>"
  }
}

/// Round steps of an axis from 0 to `limit`.
struct AxisSteps {
  var values: [Double]

  init(upTo limit: Double, about count: Double = 6) {
    guard limit > 0 else {
      values = [0]
      return
    }
    var unit = 1.0
    while unit * 10 <= limit / count { unit *= 10 }
    while unit > limit / count { unit /= 10 }
    let step = [1.0, 2, 5, 10].map { $0 * unit }.first { limit / $0 <= count } ?? unit * 10
    values = stride(from: 0, through: limit, by: step).map { $0 }
  }
}
