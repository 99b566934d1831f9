/// What `sf-offload` reports: sums over the calls. Times in microseconds.
package struct OffloadReport: Sendable {
  private static let names = [
    "calls", "offloaded", "ran_at_home", "conflicts", "bytes_out", "bytes_home", "forward_us", "run_us",
    "merge_us",
    "dropped", "came_home_early", "pages_home", "collect_us", "receive_us", "apply_us", "takeovers",
    "kept_calls",
  ]

  private let programStatus: Int32
  /// False: the program ran by itself, and its calls were not counted.
  private let watched: Bool
  /// In the order of `names`.
  package var counts = [UInt64](repeating: 0, count: names.count)

  package init(programStatus: Int32, watched: Bool) {
    self.programStatus = programStatus
    self.watched = watched
  }

  /// One JSON object and a newline. Every name is a plain word.
  package var json: String {
    var text = "{\"program_status\":\(programStatus),\"watched\":\(watched)"
    for (name, value) in zip(Self.names, counts) { text += ",\"\(name)\":\(value)" }
    return text + "}\n"
  }
}
