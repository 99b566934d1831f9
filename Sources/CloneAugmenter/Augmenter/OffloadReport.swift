/// What `sf-offload --report` writes: sums over the calls. Times in microseconds.
package struct OffloadReport: Sendable {
  package var programStatus: Int32 = 0
  package var fields: [(name: String, value: UInt64)] = []

  package init() {}

  /// One JSON object and a newline. Every name is a plain word.
  package var json: String {
    var text = "{\"program_status\":\(programStatus)"
    for field in fields { text += ",\"\(field.name)\":\(field.value)" }
    return text + "}\n"
  }
}
