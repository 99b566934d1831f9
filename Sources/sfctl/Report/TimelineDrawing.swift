import Foundation

/// A fork's phases, and below them each clone from the call to its answer, by host, on one scale.
struct TimelineDrawing {
  let fork: ForkDocument

  private static let left = 150.0
  private static let width = 900.0
  private static let row = 18.0

  private var end: Double {
    Double(max(fork.phases.map(\.endUs).max() ?? 0, fork.clones.map(\.readyUs).max() ?? 0, 1))
  }

  private func x(_ microseconds: UInt64) -> Double {
    Self.left + Double(microseconds) / end * (Self.width - Self.left - 20)
  }

  /// Hosts in their order, each with its clones.
  private var hosts: [(name: String, clones: [ForkDocument.Clone])] {
    Dictionary(grouping: fork.clones, by: \.host)
      .map { (name: $0.key, clones: $0.value.sorted { $0.vmid < $1.vmid }) }
      .sorted { $0.name.localizedStandardCompare($1.name) == .orderedAscending }
  }

  var svg: String {
    var parts: [String] = []
    var y = 24.0
    for phase in fork.phases {
      let took = Units.microseconds(phase.endUs - min(phase.beginUs, phase.endUs))
      parts.append(Markup.text(Self.left - 8, y + 12, phase.phase, anchor: "end"))
      parts.append(
        Markup.rectangle(
          x(phase.beginUs), y + 2, x(phase.endUs) - x(phase.beginUs), Self.row - 5,
          style: "phase \(phase.phase)",
          title: "\(phase.phase): \(took), from \(Units.microseconds(phase.beginUs))"))
      let label = x(phase.endUs) + 5
      if label < Self.width - 60 { parts.append(Markup.text(label, y + 12, took, style: "small")) }
      y += Self.row
    }
    for host in hosts {
      y += 8
      parts.append(Markup.text(8, y + 12, host.name.isEmpty ? "this host" : host.name, style: "strong"))
      for clone in host.clones {
        parts.append(Markup.text(Self.left - 8, y + 12, clone.name, anchor: "end"))
        parts.append(bar(clone, y))
        y += Self.row
      }
    }
    let axis = AxisSteps(upTo: end).values.flatMap { value in
      [
        Markup.line(x(UInt64(value)), 20, x(UInt64(value)), y + 4, style: "grid"),
        Markup.text(
          x(UInt64(value)), 14, Units.microseconds(UInt64(value)), anchor: "middle", style: "small"),
      ]
    }
    return Markup.drawing(width: Self.width, height: y + 10, label: "Timeline of the fork", axis + parts)
  }

  private func bar(_ clone: ForkDocument.Clone, _ y: Double) -> String {
    guard clone.readyUs > 0 else {
      return Markup.text(x(0) + 4, y + 12, "\(clone.state): \(clone.reason)", style: "bad")
    }
    let begin = fork.phases.first { $0.phase == "activate" }?.beginUs ?? 0
    let title =
      "\(clone.name) answered after \(Units.microseconds(clone.readyUs)); taking the device state took "
      + Units.microseconds(clone.activateUs)
    return Markup.rectangle(
      x(min(begin, clone.readyUs)), y + 3, x(clone.readyUs) - x(min(begin, clone.readyUs)), Self.row - 7,
      style: "clone", title: title)
  }
}
