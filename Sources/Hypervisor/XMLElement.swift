/// An XML element that is built from parts and written with everything escaped.
///
/// Only what domain definitions need: elements, attributes and text, no mixed content.
package struct XMLElement {
  package var name: String
  package var attributes: [(String, String)]
  package var children: [XMLElement]
  package var text: String

  package init(_ name: String, _ attributes: [(String, String)] = [], children: [XMLElement] = []) {
    self.name = name
    self.attributes = attributes
    self.children = children
    self.text = ""
  }

  package init(_ name: String, _ attributes: [(String, String)] = [], text: String) {
    self.name = name
    self.attributes = attributes
    self.children = []
    self.text = text
  }

  /// The element as text, two spaces a level.
  package func serialized(depth: Int = 0) -> String {
    let indent = String(repeating: "  ", count: depth)
    var opening = "\(indent)<\(name)"
    for (key, value) in attributes { opening += " \(key)='\(Self.escape(value))'" }
    if !children.isEmpty {
      let inner = children.map { $0.serialized(depth: depth + 1) }.joined()
      return "\(opening)>\n\(inner)\(indent)</\(name)>\n"
    }
    return text.isEmpty ? "\(opening)/>\n" : "\(opening)>\(Self.escape(text))</\(name)>\n"
  }

  /// Characters that XML 1.0 cannot hold, even escaped, become U+FFFD: no caller's text can break the document.
  package static func escape(_ text: String) -> String {
    var result = ""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "&": result += "&amp;"
      case "<": result += "&lt;"
      case ">": result += "&gt;"
      case "'": result += "&apos;"
      case "\"": result += "&quot;"
      case "\t", "\n", "\r": result += "&#\(scalar.value);"
      default:
        let allowed = scalar.value >= 0x20 && scalar.value != 0xFFFE && scalar.value != 0xFFFF
        result.unicodeScalars.append(allowed ? scalar : "\u{FFFD}")
      }
    }
    return result
  }
}
