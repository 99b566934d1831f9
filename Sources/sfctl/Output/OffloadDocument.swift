import Foundation

/// `offload --json`: what the guest's sf-offload has reported, which may be more than the contract promises.
struct OffloadDocument {
  /// The contract's fields; each is a whole number.
  static let fields = [
    "program_status", "calls", "offloaded", "ran_at_home", "conflicts", "bytes_out", "bytes_home",
    "forward_us",
    "run_us", "merge_us",
  ]

  /// One line, its keys sorted.
  let json: String
  private let numbers: [String: Int64]
  /// False: the program ran by itself, and calls were not counted.
  private let isWatched: Bool

  /// Nil: it is no report.
  init?(_ data: Data) {
    guard let report = try? JSONSerialization.jsonObject(with: data) as? [String: Any] else { return nil }
    var numbers: [String: Int64] = [:]
    for field in Self.fields {
      guard let number = report[field] as? NSNumber, Double(number.int64Value) == number.doubleValue,
        number.int64Value >= 0
      else { return nil }
      numbers[field] = number.int64Value
    }
    let options: JSONSerialization.WritingOptions = [.sortedKeys, .withoutEscapingSlashes]
    guard let line = try? JSONSerialization.data(withJSONObject: report, options: options) else { return nil }
    json = String(decoding: line, as: UTF8.self)
    self.numbers = numbers
    isWatched = report["watched"] as? Bool ?? true
  }

  /// One line for a person.
  var text: String {
    func time(_ field: String) -> String { Units.microseconds(UInt64(number(field))) }
    func bytes(_ field: String) -> String { Units.bytes(UInt64(number(field))) }
    guard isWatched else {
      return "it ran at home, where by what was measured it is fastest; calls were not counted."
    }
    let calls = number("calls")
    guard calls > 0 else { return "the block was not called." }
    return "\(calls) \(calls == 1 ? "call" : "calls"): \(number("offloaded")) in a clone, "
      + "\(number("ran_at_home")) at home, \(number("conflicts")) in conflict; \(bytes("bytes_out")) out, "
      + "\(bytes("bytes_home")) home; going \(time("forward_us")), running \(time("run_us")), "
      + "merging \(time("merge_us"))."
  }

  private func number(_ field: String) -> Int64 { numbers[field] ?? 0 }
}
