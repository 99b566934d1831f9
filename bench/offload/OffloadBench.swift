import BenchSupport
import Foundation

/// CloneCloud's table 1: each program and input at home, all in a clone, and offloaded over each link.
struct OffloadBench {
  let device: Device
  let links: [String]
  let programs: [BenchProgram]
  let quick: Bool
  /// The longest that a run may take; one that takes longer counts as this, and its row says so.
  let limitS: Double
  static let cpuPercent = 5

  struct Row: Encodable {
    var bench = "offload"
    var program: String
    var block: String
    var input: String
    var link: String
    var cpuLimitPercent = OffloadBench.cpuPercent
    var limitS: Double
    /// The device alone, and a VM without a limit alone.
    var homeUs: Double
    var cloneUs: Double
    var homeTimedOut: Bool
    /// Each call offloaded.
    var alwaysUs: Double
    var alwaysTimedOut: Bool
    var always: Device.Report?
    /// What the controller chose, run after run: it learns.
    var autoUs: [Double]
    var autoOffloaded: [Int]
    var autoCalls: [Int]
    var choice: String
    var maxSpeedUp: Double
    var alwaysSpeedUp: Double
    var autoSpeedUp: Double
    /// Output and status of each run that ended are the program's at home.
    var sameOutput: Bool
  }

  /// What a program takes without any offload; it does not depend on the link.
  struct Plain {
    var home: Device.Run
    var clone: Device.Run
  }

  func run() throws {
    var plain: [String: Plain] = [:]
    var rows: [Row] = []
    for link in links {
      say("a device at \(Self.cpuPercent) % and a clone's host over \(link)")
      try device.labUp(link: link)
      if plain.isEmpty {
        try device.start("full", cpuPercent: nil)
        try device.start("dev", cpuPercent: Self.cpuPercent)
        try each { program, input in
          // The first run fills caches of translated code, at home and there.
          let clone = try [0, 1].map { _ in try device.run(program, input, on: "full", limitS: limitS) }[1]
          let home = try device.run(program, input, on: "dev", limitS: limitS)
          plain[key(program, input)] = Plain(home: home, clone: clone)
          say(
            "  \(program.name) \(input.name): \(seconds(home.microseconds)), \(seconds(clone.microseconds)) in a clone"
          )
        }
        try device.destroy("full")
      } else {
        try device.start("dev", cpuPercent: Self.cpuPercent)
      }
      try each { program, input in
        let row = try offloaded(program, input, link, plain[key(program, input)]!)
        rows.append(row)
        try write(row)
      }
      try device.destroy("dev")
      try device.labDown()
    }
    show(rows)
  }

  private func offloaded(_ program: BenchProgram, _ input: BenchProgram.Input, _ link: String, _ plain: Plain)
    throws
    -> Row
  {
    var isSame = true
    func compare(_ run: Device.Run) {
      guard run.status != nil, plain.home.status != nil else { return }
      isSame = isSame && run.status == plain.home.status && lines(run) == lines(plain.home)
    }
    let always = try device.offload(program, input, on: "dev", mode: "always", limitS: limitS)
    compare(always.run)
    var runs: [(run: Device.Run, report: Device.Report?)] = []
    for _ in 0..<(quick ? 2 : 4) {
      runs.append(try device.offload(program, input, on: "dev", mode: "auto", limitS: limitS))
      compare(runs.last!.run)
    }
    let last = runs.last!
    let homeUs = plain.home.microseconds
    return Row(
      program: program.name, block: program.block, input: input.name, link: link, limitS: limitS,
      homeUs: homeUs,
      cloneUs: plain.clone.microseconds, homeTimedOut: plain.home.status == nil,
      alwaysUs: always.run.microseconds,
      alwaysTimedOut: always.run.status == nil, always: always.report, autoUs: runs.map(\.run.microseconds),
      autoOffloaded: runs.map { $0.report?.offloaded ?? 0 }, autoCalls: runs.map { $0.report?.calls ?? 0 },
      choice: (last.report?.offloaded ?? 0) > 0 ? "offload" : "home",
      maxSpeedUp: homeUs / plain.clone.microseconds,
      alwaysSpeedUp: homeUs / always.run.microseconds, autoSpeedUp: homeUs / last.run.microseconds,
      sameOutput: isSame)
  }

  /// Standard output and error come together by one way and apart by the other: in no order.
  private func lines(_ run: Device.Run) -> [Data] {
    run.output.split(separator: UInt8(ascii: "\n")).map { Data($0) }.sorted {
      $0.lexicographicallyPrecedes($1)
    }
  }

  private func each(_ body: (BenchProgram, BenchProgram.Input) throws -> Void) throws {
    for program in programs {
      for input in quick ? Array(program.inputs.prefix(2)) : program.inputs { try body(program, input) }
    }
  }

  private func key(_ program: BenchProgram, _ input: BenchProgram.Input) -> String {
    "\(program.name) \(input.name)"
  }

  private func write(_ row: Row) throws {
    let encoder = JSONEncoder()
    encoder.keyEncodingStrategy = .convertToSnakeCase
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    FileHandle.standardOutput.write(try encoder.encode(row) + Data("\n".utf8))
  }

  private func seconds(_ microseconds: Double) -> String { String(format: "%.2f s", microseconds / 1e6) }

  private func show(_ rows: [Row]) {
    say(
      "\nprogram   input  link      home     clone    max |  offloaded  speed-up | controller  speed-up  choice  same"
    )
    for row in rows {
      say(
        [
          row.program.padding(toLength: 9, withPad: " ", startingAt: 0),
          row.input.padding(toLength: 6, withPad: " ", startingAt: 0),
          row.link.padding(toLength: 5, withPad: " ", startingAt: 0),
          wide(seconds(row.homeUs) + (row.homeTimedOut ? "+" : ""), 9),
          wide(seconds(row.cloneUs), 9), wide(factor(row.maxSpeedUp), 6), "|",
          wide(seconds(row.alwaysUs), 10),
          wide(factor(row.alwaysSpeedUp), 9), "|", wide(seconds(row.autoUs.last ?? 0), 10),
          wide(factor(row.autoSpeedUp), 9),
          wide(row.choice, 8), row.sameOutput ? "yes" : "NO",
        ].joined(separator: " "))
    }
    say("\nWanted:")
    let slowest = rows.map { ($0.autoUs.last ?? 0) / $0.homeUs }.max() ?? 0
    say("  \(mark(slowest <= 1.05)) the controller's last run is at most 1.05 times home: \(factor(slowest))")
    for row in rows
    where row.link == "wifi"
      && row.input == programs.first(where: { $0.name == row.program })?.inputs.last?.name
    {
      let share = row.autoSpeedUp / row.maxSpeedUp
      say(
        "  \(mark(share >= 0.8)) \(row.program), largest input over WiFi: \(Int(100 * share)) % of the maximum speed-up (≥ 80)"
      )
    }
    say("  \(mark(rows.allSatisfy(\.sameOutput))) the same output with and without")
  }

  private func mark(_ isReached: Bool) -> String { isReached ? "reached    " : "NOT reached" }
  private func factor(_ value: Double) -> String { String(format: "%.2f", value) }
  private func wide(_ text: String, _ width: Int) -> String {
    String(repeating: " ", count: max(0, width - text.count)) + text
  }
}
