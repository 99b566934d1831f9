import ArgumentParser
import Foundation

/// Values with their units, for a person.
enum Units {
  /// `4.3 MiB`
  static func bytes(_ count: UInt64) -> String {
    let names = ["B", "KiB", "MiB", "GiB", "TiB"]
    var value = Double(count)
    var name = 0
    while value >= 1024, name < names.count - 1 {
      value /= 1024
      name += 1
    }
    let digits = name == 0 || value == value.rounded() ? 0 : 1
    return String(format: "%.\(digits)f ", value) + names[name]
  }

  /// `850 µs`, `7.4 ms`, `1.25 s`
  static func microseconds(_ count: UInt64) -> String {
    switch count {
    case ..<1000: "\(count) µs"
    case ..<1_000_000: String(format: "%.1f ms", Double(count) / 1e3)
    default: String(format: "%.2f s", Double(count) / 1e6)
    }
  }

  /// `2026-11-20 22:47:10`, in UTC. Empty for 0.
  static func time(_ unix: Int64) -> String {
    guard unix != 0 else { return "" }
    let text = Date(timeIntervalSince1970: TimeInterval(unix)).ISO8601Format()
    return text.replacingOccurrences(of: "T", with: " ").replacingOccurrences(of: "Z", with: "")
  }
}

/// `256M`, `1G`, or a number of bytes; a whole number of MiB.
struct MemorySize: ExpressibleByArgument {
  var bytes: UInt64
  var defaultValueDescription: String { "\(bytes >> 20)M" }
  static let unit: UInt64 = 1 << 20

  init?(argument: String) {
    let digits = argument.prefix { $0.isASCII && $0.isNumber }
    guard let number = UInt64(digits) else { return nil }
    let shift: UInt64
    switch argument.dropFirst(digits.count).uppercased() {
    case "", "B": shift = 0
    case "K", "KB", "KIB": shift = 10
    case "M", "MB", "MIB": shift = 20
    case "G", "GB", "GIB": shift = 30
    case "T", "TB", "TIB": shift = 40
    default: return nil
    }
    let (product, overflow) = number.multipliedReportingOverflow(by: 1 << shift)
    guard !overflow, product > 0, product.isMultiple(of: Self.unit) else { return nil }
    bytes = product
  }
}
