import BenchSupport
import Foundation

/// CloneCloud's table 1: each program and input at home, all in a clone, and offloaded over each link.
struct OffloadBench {
  let device: Device
  let links: [String]
  let programs: [BenchProgram]
  let quick: Bool
  /// Of each program the largest input only.
  let largest: Bool
  /// The longest that a run may take; one that takes longer counts as this, and its row says so.
  let limitS: Double
  /// Whether the clones' host has a standby of the device.
  let standby: Bool
  static let cpuPercent = 5

  struct Row: Encodable {
    var bench = "offload"
    var program: String
    var block: String
    var input: String
    var link: String
    /// Forks are warm: the clones' host has a standby, with a checkpoint before each run.
    var standby: Bool
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
    /// False: the controller had the program run by itself, and calls were not counted.
    var autoWatched: [Bool]
    var choice: String
    var maxSpeedUp: Double
    var alwaysSpeedUp: Double
    var autoSpeedUp: Double
    /// What this machine's host took of its processors during these runs.
    var homeStolenPercent: Double
    var alwaysStolenPercent: Double
    var autoStolenPercent: [Double]
    /// Output and status of each run that ended are the program's at home.
    var sameOutput: Bool
  }

  /// What was offloaded of one program and input; what it takes at home is measured meanwhile.
  private struct Offloaded {
    var program: BenchProgram
    var input: BenchProgram.Input
    var link: String
    var clone: Device.Run
    var always: (run: Device.Run, report: Device.Report?)
    var auto: [(run: Device.Run, report: Device.Report?)]
  }

  func run() throws {
    let home = HomeRuns(device: device, limitS: limitS)
    var clones: [String: Device.Run] = [:]
    var rows: [Row] = []
    for link in links {
      say("a device at \(Self.cpuPercent) % behind \(link), and a clone's host")
      try device.labUp()
      if clones.isEmpty {
        clones = try runInClone()
        try home.begin(programs.map { ($0, inputs(of: $0)) }, cpuPercent: Self.cpuPercent)
      }
      try device.start("dev", cpuPercent: Self.cpuPercent)
      if standby {
        say("  the standby's first checkpoint, over the cable")
        try device.replicate("dev")
      }
      try device.setLink(link)
      var offloaded: [Offloaded] = []
      try each { program, input in
        offloaded.append(try offload(program, input, link, clones[key(program, input)]!))
      }
      try device.destroy("dev")
      try home.end()
      for part in offloaded {
        let row = row(part, home.run(of: part.program, part.input))
        rows.append(row)
        try write(row)
      }
      try device.labDown()
    }
    show(rows)
  }

  /// In a VM without a limit. A first run, of the smallest input, fills caches of translated code.
  private func runInClone() throws -> [String: Device.Run] {
    var runs: [String: Device.Run] = [:]
    try device.start("full", cpuPercent: nil)
    for program in programs {
      _ = try device.run(program, program.inputs[0], on: "full", limitS: limitS)
      for input in inputs(of: program) {
        let run = try device.run(program, input, on: "full", limitS: limitS)
        runs[key(program, input)] = run
        say("  \(program.name) \(input.name) in a clone: \(seconds(run.microseconds))")
      }
    }
    try device.destroy("full")
    return runs
  }

  /// Once as told, which the controller learns from, then as it chooses.
  private func offload(
    _ program: BenchProgram, _ input: BenchProgram.Input, _ link: String, _ clone: Device.Run
  ) throws -> Offloaded {
    func run(_ mode: String) throws -> (run: Device.Run, report: Device.Report?) {
      if standby { try device.checkpoint("dev") }
      let result = try device.offload(program, input, on: "dev", mode: mode, limitS: limitS)
      let whither = (result.report?.offloaded ?? 0) > 0 ? "offloaded" : "at home"
      let stolen = result.run.stolenPercent >= 3 ? ", \(Int(result.run.stolenPercent)) % stolen" : ""
      say("  \(program.name) \(input.name) \(mode): \(seconds(result.run.microseconds)), \(whither)\(stolen)")
      return result
    }
    let always = try run("always")
    // The largest would be at home for minutes if the controller left it there.
    let isLargest = input.name == program.inputs.last?.name
    let auto = try (0..<(quick || isLargest ? 2 : 4)).map { _ in try run("auto") }
    return Offloaded(program: program, input: input, link: link, clone: clone, always: always, auto: auto)
  }

  private func row(_ part: Offloaded, _ home: Device.Run) -> Row {
    let runs = [part.clone, part.always.run] + part.auto.map(\.run)
    let isSame = runs.allSatisfy {
      $0.status == nil || home.status == nil || ($0.status == home.status && lines($0) == lines(home))
    }
    let homeUs = home.microseconds
    let last = part.auto.last!
    return Row(
      program: part.program.name, block: part.program.block, input: part.input.name, link: part.link,
      standby: standby, limitS: limitS, homeUs: homeUs, cloneUs: part.clone.microseconds,
      homeTimedOut: home.status == nil, alwaysUs: part.always.run.microseconds,
      alwaysTimedOut: part.always.run.status == nil, always: part.always.report,
      autoUs: part.auto.map(\.run.microseconds), autoOffloaded: part.auto.map { $0.report?.offloaded ?? 0 },
      autoCalls: part.auto.map { $0.report?.calls ?? 0 },
      autoWatched: part.auto.map { $0.report?.watched ?? true },
      choice: (last.report?.offloaded ?? 0) > 0 ? "offload" : "home",
      maxSpeedUp: homeUs / part.clone.microseconds,
      alwaysSpeedUp: homeUs / part.always.run.microseconds, autoSpeedUp: homeUs / last.run.microseconds,
      homeStolenPercent: home.stolenPercent, alwaysStolenPercent: part.always.run.stolenPercent,
      autoStolenPercent: part.auto.map(\.run.stolenPercent), sameOutput: isSame)
  }

  /// Standard output and error come together by one way and apart by the other: in no order.
  private func lines(_ run: Device.Run) -> [Data] {
    run.output.split(separator: UInt8(ascii: "\n")).map { Data($0) }.sorted {
      $0.lexicographicallyPrecedes($1)
    }
  }

  private func each(_ body: (BenchProgram, BenchProgram.Input) throws -> Void) throws {
    for program in programs {
      for input in inputs(of: program) { try body(program, input) }
    }
  }

  private func inputs(of program: BenchProgram) -> [BenchProgram.Input] {
    if largest { return program.inputs.suffix(1) }
    return quick ? Array(program.inputs.prefix(2)) : program.inputs
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
    let stolen =
      rows.flatMap { [$0.homeStolenPercent, $0.alwaysStolenPercent] + $0.autoStolenPercent }.max() ?? 0
    if stolen >= 3 {
      say("\nThis machine's host took up to \(Int(stolen)) % of its processors during a run.")
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
