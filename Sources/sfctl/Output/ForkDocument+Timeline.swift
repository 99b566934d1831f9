/// A fork drawn for a person: its phases on one scale, then its clones.
extension ForkDocument {
  private static let barWidth = 40

  var timeline: String {
    var lines = [
      "\(granted) of \(requested) clones of \(parent), \(Units.bytes(ramBytes)) of RAM, "
        + "descriptor \(Units.bytes(descriptorBytes))",
      "\(pauseText)the last clone was ready after "
        + "\(Units.microseconds(forkUs))",
    ]
    var steps = Table("PHASE", "BEGIN", "TOOK", "")
    steps.add("ticket", "before", Units.microseconds(ticketUs), "slots pre-started")
    for phase in phases {
      steps.add(
        phase.phase, Units.microseconds(phase.beginUs),
        Units.microseconds(phase.endUs - min(phase.beginUs, phase.endUs)),
        bar(from: phase.beginUs, to: phase.endUs))
    }
    lines.append(steps.text)
    var table = Table(
      "VMID", "NAME", "HOST", "STATE", "ACTIVATED", "READY", "ENDED", "TOUCHED", "OF RAM", "OWN", "REASON")
    for clone in clones {
      let share = ramBytes == 0 ? 0 : Double(clone.touchedBytes) * 100 / Double(ramBytes)
      table.add(
        clone.vmidText, clone.name, clone.host, clone.state, Units.microseconds(clone.activateUs),
        Units.microseconds(clone.readyUs), clone.endedUs == 0 ? "" : Units.microseconds(clone.endedUs),
        clone.endedUs == 0 ? "" : Units.bytes(clone.touchedBytes),
        clone.endedUs == 0 ? "" : "\((share * 10).rounded() / 10) %",
        clone.endedUs == 0 ? "" : Units.bytes(clone.privateBytes), clone.reason)
    }
    lines.append(table.text)
    return lines.joined(separator: "\n")
  }

  private func bar(from begin: UInt64, to end: UInt64) -> String {
    let whole = max(phases.map(\.endUs).max() ?? 1, 1)
    let first = Int(begin * UInt64(Self.barWidth) / whole)
    let last = max(first + 1, Int(end * UInt64(Self.barWidth) / whole))
    return String(repeating: " ", count: first) + String(repeating: "█", count: last - first)
  }
}
