import Foundation
import Wire

/// One fork on one page of HTML, with nothing from elsewhere.
struct ReportPage {
  let fork: ForkDocument
  var history: Snowfork_V1_TicketHistoryReply?
  /// Why there is no history.
  var missing = ""

  init(fork: ForkDocument) { self.fork = fork }

  var html: String {
    """
    <!DOCTYPE html>
    <html lang="en">
    <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width">
    <title>Fork of \(Markup.escaped(fork.parent)), ticket \(Markup.escaped(fork.ticket))</title>
    <style>
    \(Self.style)
    </style>
    </head>
    <body>
    <h1>Fork of \(Markup.escaped(fork.parent))</h1>
    <p>Ticket <code>\(Markup.escaped(fork.ticket))</code>, snapshot <code>\(Markup.escaped(fork.snapshot))</code></p>
    \(summary)
    <h2>Timeline</h2>
    <p>Since the call. Slots were started before it, with the ticket: \(Units.microseconds(fork.ticketUs)).</p>
    \(TimelineDrawing(fork: fork).svg)
    \(pages)
    </body>
    </html>

    """
  }

  private var summary: String {
    let lost = fork.clones.count { $0.state == "lost" }
    let hosts = Set(fork.clones.map(\.host)).count
    var facts = [
      ("clones", "\(fork.granted) of \(fork.requested)" + (lost > 0 ? ", \(lost) lost" : "")),
      ("hosts", "\(hosts)"),
      ("ready after", Units.microseconds(fork.forkUs)),
    ]
    if fork.phases.contains(where: { $0.phase == "freeze" }) {
      facts.append(("parent paused", Units.microseconds(fork.parentPauseUs)))
    }
    facts += [("RAM", Units.bytes(fork.ramBytes)), ("descriptor", Units.bytes(fork.descriptorBytes))]
    let cells = facts.map { "<div><dt>\($0.0)</dt><dd>\(Markup.escaped($0.1))</dd></div>" }
    return "<dl>\(cells.joined())</dl>"
  }

  private var pages: String {
    guard let history else {
      return "<h2>Pages</h2><p class=\"note\">\(Markup.escaped(missing))</p>"
    }
    func curves(_ value: (Snowfork_V1_HistorySample) -> UInt64) -> [CurveDrawing.Curve] {
      history.hosts.enumerated().map { index, host in
        .init(
          name: host.host, index: index, points: host.samples.map { (time: $0.us, value: value($0)) })
      }
    }
    let present = CurveDrawing(
      label: "Pages on each host by time", curves: curves(\.pages), text: { "\($0)" })
    let most = history.hosts.compactMap { $0.samples.last?.bytes }.max() ?? 0
    let received = CurveDrawing(
      label: "Bytes received by each host by time",
      curves: curves(\.bytes).filter { $0.points.last?.value ?? 0 > 0 }, text: Units.bytes,
      unit: most >= 1 << 20 ? 1_048_576 : 1024)
    let receivedPart =
      received.curves.isEmpty
      ? "" : "<h2>Bytes received from the parent's host</h2>\n\(received.svg)"
    return """
      <h2>Pages that have come to each host</h2>
      <p>Of \(history.pagesTotal), by time since the snapshot came to the host; those of the parent's own host were \
      copied, not sent.</p>
      \(present.svg)
      \(receivedPart)
      <h2>Which pages</h2>
      \(legend)
      \(history.hosts.map(map).joined(separator: "\n"))
      """
  }

  private var legend: String {
    let entries = PageMapDrawing.Kind.allCases.map {
      "<li><span class=\"swatch k\($0.rawValue)\"></span>\(Markup.escaped($0.meaning))</li>"
    }
    return "<ul class=\"legend\">\(entries.joined())</ul>"
  }

  private func map(_ host: Snowfork_V1_HostHistory) -> String {
    let drawing = PageMapDrawing(host: host.host, pages: Array(host.pages))
    let counts = PageMapDrawing.Kind.allCases.compactMap { kind -> String? in
      let count = drawing.count(kind)
      return count == 0 ? nil : "<span class=\"swatch k\(kind.rawValue)\"></span>\(count) \(kind)"
    }
    return "<h3>\(Markup.escaped(host.host))</h3>\n<p class=\"counts\">\(counts.joined(separator: " "))</p>\n"
      + drawing.svg
  }

  private static let style = """
    body { font: 15px/1.45 system-ui, sans-serif; color: #1c2733; max-width: 920px; margin: 2em auto; padding: 0 1em; }
    h1 { margin-bottom: 0; } h2 { margin-top: 2em; } h3 { margin: 1.2em 0 0; }
    code { background: #eef2f6; padding: 1px 4px; border-radius: 3px; }
    dl { display: flex; flex-wrap: wrap; gap: 12px; }
    dl div { background: #f3f6f9; border-radius: 6px; padding: 8px 14px; }
    dt { color: #5b6b7b; font-size: 12px; } dd { margin: 0; font-size: 19px; }
    svg { display: block; max-width: 100%; } svg text { font: 12px system-ui, sans-serif; fill: #1c2733; }
    svg .small { font-size: 11px; fill: #5b6b7b; } svg .strong { font-weight: 600; } svg .bad { fill: #b3261e; }
    .grid { stroke: #dde4ea; stroke-width: 1; }
    .phase { fill: #7a94ad; } .freeze { fill: #c8442e; } .distribute { fill: #8a5fbf; } .ready { fill: #4f9d69; }
    .clone { fill: #3f7fbf; } .note { background: #fff6df; padding: 8px 12px; border-radius: 6px; }
    .curve { fill: none; stroke-width: 1.6; }
    .c0 { stroke: #3f7fbf; } .c1 { stroke: #c8442e; } .c2 { stroke: #4f9d69; } .c3 { stroke: #8a5fbf; }
    .c4 { stroke: #d98e04; } .c5 { stroke: #17888c; } .c6 { stroke: #b34d86; } .c7 { stroke: #6b6b2a; }
    .legend { list-style: none; padding: 0; columns: 2; } .counts { margin: 2px 0 6px; color: #5b6b7b; }
    .swatch { display: inline-block; width: 11px; height: 11px; margin: 0 5px 0 8px; border: 1px solid #c3ccd5; }
    .k0 { fill: #ffffff; background: #ffffff; } .k1 { fill: #c9d5e0; background: #c9d5e0; }
    .k2 { fill: #c8442e; background: #c8442e; } .k3 { fill: #3f7fbf; background: #3f7fbf; }
    .k4 { fill: #4f9d69; background: #4f9d69; } .k5 { fill: #eef1f4; background: #eef1f4; }
    .k6 { fill: #d98e04; background: #d98e04; }
    """
}
