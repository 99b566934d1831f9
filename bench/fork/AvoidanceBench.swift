import BenchSupport
import Foundation

/// SnowFlock's experiment with SHRiMP (figure 4(b)): clones that allocate and fill much memory and read an input that their
/// parent made, with avoidance and without it, by unicast and by multicast.
struct AvoidanceBench {
  let snowfork: Snowfork
  let recorder: Recorder
  let hosts: Int
  let quick: Bool
  /// Where the figure is drawn; nil: nowhere.
  let plot: String?

  private static let inputMib = 40

  /// A column of the figure.
  struct Configuration: Hashable {
    var avoids: Bool
    var transport: String
    /// The parent had been forked before for the same task.
    var isRecorded = false
    var name: String {
      "\(transport), \(avoids ? isRecorded ? "recorded working set" : "avoidance" : "none")"
    }
  }

  private struct Shape {
    var clones: Int
    var taskMib: Int
    /// What the task takes, the input twice (written to a tmpfs), and the guest itself.
    var size: GuestSize { GuestSize(ramMib: taskMib + 256, inUseMib: 0) }
  }

  private var shapes: [Shape] {
    quick
      ? [Shape(clones: 1, taskMib: 256), Shape(clones: 8, taskMib: 256)]
      : [
        Shape(clones: 1, taskMib: 1024), Shape(clones: 8, taskMib: 1024), Shape(clones: 32, taskMib: 256),
      ]
  }

  func run() throws {
    var columns: [PlotColumn] = []
    for shape in shapes {
      var row: [PlotColumn] = []
      for avoids in [false, true] {
        for transport in ["unicast", "multicast"] {
          let configuration = Configuration(avoids: avoids, transport: transport)
          try prepare(shape, configuration)
          row.append(try measure(shape, configuration))
          if avoids {
            row.append(
              try measure(shape, Configuration(avoids: true, transport: transport, isRecorded: true)))
          }
          if avoids, transport == "multicast" {
            let hereUs = try measureHere(shape)
            for index in row.indices { row[index].hereUs = hereUs }
          }
          try snowfork.destroy("dev")
        }
      }
      columns += row
    }
    show(columns)
    if let plot {
      try AvoidancePlot(columns: columns).svg.write(toFile: plot, atomically: true, encoding: .utf8)
    }
  }

  /// What one configuration came to, from the fork to the last clone's end of its task.
  struct PlotColumn {
    var configuration: Configuration
    var clones: Int
    var taskMib: Int
    var shape: String { "\(clones) × \(taskMib) MiB" }
    /// Pages asked for by all hosts, and pages sent.
    var requests: Double
    var served: Double
    var sentBytes: Double
    var avoided: Double
    /// Of the slowest clone, by its own clock.
    var taskUs: Double
    /// Of the slowest clone of a snapshot all of whose pages that the task needs are on the clone's host.
    var hereUs = 0.0
    /// Of the same work again in the same clone: its own memory has been given to it, too.
    var againUs: Double
    var ratio: Double { taskUs / hereUs }
  }

  private func measure(_ shape: Shape, _ configuration: Configuration) throws -> PlotColumn {
    say("\(shape.clones) clones of \(shape.taskMib) MiB, \(configuration.name)")
    let fork = try snowfork.fork(
      "dev", clones: shape.clones, Snowfork.onOthers(hosts) + ["--transport", configuration.transport])
    let times = try runTask(shape, in: fork)
    let statistics = try snowfork.statistics(fork.ticket)
    try snowfork.kill(fork.ticket)
    let column = PlotColumn(
      configuration: configuration, clones: shape.clones, taskMib: shape.taskMib,
      requests: statistics.mcdist.requests, served: statistics.mcdist.served,
      sentBytes: statistics.mcdist.bytesSent, avoided: statistics.pagesAvoided,
      taskUs: times.map(\.first).max()!, againUs: times.map(\.again).max()!)
    let samples: [(String, [Double])] = [
      ("requests", [column.requests]), ("served", [column.served]), ("sent_bytes", [column.sentBytes]),
      ("avoided_pages", [column.avoided]), ("free_pages", [fork.freePages]),
      ("task_us", times.map(\.first)), ("again_us", times.map(\.again)),
    ]
    for (figure, values) in samples {
      try recorder.record(configuration.name, figure, shape.size, clones: shape.clones, values)
    }
    return column
  }

  /// The task's time where no page has to come from another host: clones of a kept snapshot whose clones have done the task before.
  private func measureHere(_ shape: Shape) throws -> Double {
    say("\(shape.clones) clones of \(shape.taskMib) MiB, all pages on their hosts")
    try snowfork.keepSnapshot(of: "dev", as: "warm")
    var times: [Times] = []
    for _ in 0..<2 {
      let fork = try snowfork.clone("warm", clones: shape.clones, Snowfork.onOthers(hosts))
      times = try runTask(shape, in: fork)
      try snowfork.kill(fork.ticket)
    }
    try snowfork.removeSnapshot("warm")
    try recorder.record(
      "all here", "task_us", shape.size, clones: shape.clones, times.map(\.first))
    return times.map(\.first).max()!
  }

  private func runTask(_ shape: Shape, in fork: Snowfork.Fork) throws -> [Times] {
    let memory = HostMemory(mebibytes: shape.clones * shape.taskMib * 5 / 4)
    defer { memory.close() }
    let snowfork = snowfork
    let task = ["sf-shrimp", "align", "\(shape.taskMib)", "/reads"]
    let answers = try LockstepBench.inAll(fork.clones.map(\.name)) { try snowfork.execute(on: $0, task) }
    let times = try answers.map(Times.init)
    guard Set(times.map(\.sum)).count == 1 else {
      throw BenchError("clones computed different sums: \(Set(times.map(\.sum)))")
    }
    return times
  }

  /// A parent that has run for a while: what it has free is not zero.
  private func prepare(_ shape: Shape, _ configuration: Configuration) throws {
    try snowfork.start("dev", shape.size, configuration.avoids ? [] : ["--no-avoidance"])
    _ = try snowfork.execute(on: "dev", ["sf-shrimp", "warm", "\(shape.taskMib + 64)"])
    _ = try snowfork.execute(on: "dev", ["sf-shrimp", "reads", "\(Self.inputMib)", "/reads"])
  }

  /// Microseconds of the task, done three times: the first one's memory is not there, the others' is.
  private struct Times {
    var first: Double
    var again: Double
    var sum: String

    init(_ text: String) throws {
      let parts = text.split(whereSeparator: \.isWhitespace)
      guard parts.count == 4, let first = Double(parts[0]), let second = Double(parts[1]),
        let third = Double(parts[2])
      else { throw BenchError("a clone answered \(text)") }
      self.first = first
      again = min(second, third)
      sum = String(parts[3])
    }
  }

  private func show(_ columns: [PlotColumn]) {
    say("\nClones that fill their memory from \(Self.inputMib) MiB of input, on \(hosts - 1) other hosts:")
    say(
      "clones  MiB   configuration                       requests     served       sent  of footprint    task  all here  ratio   again"
    )
    for column in columns {
      let footprint = Double(column.taskMib) * 1_048_576
      let cells = [
        String(format: "%6d %5d   ", column.clones, column.taskMib),
        column.configuration.name.padding(toLength: 32, withPad: " ", startingAt: 0),
        String(
          format: "%12.0f %10.0f %7.1f MB %10.2f %% %6.2f s %6.2f s %6.2f %6.2f s", column.requests,
          column.served,
          column.sentBytes / 1e6, column.sentBytes / footprint * 100, column.taskUs / 1e6,
          column.hereUs / 1e6, column.ratio, column.againUs / 1e6),
      ]
      say(cells.joined())
    }
    wanted(columns)
  }

  private func wanted(_ columns: [PlotColumn]) {
    say("\nWanted:")
    for with in columns where with.configuration.avoids {
      guard
        let without = columns.first(where: {
          !$0.configuration.avoids && $0.configuration.transport == with.configuration.transport
            && $0.clones == with.clones
        })
      else { continue }
      let what = "\(with.clones) clones, \(with.configuration.name)"
      let share = with.sentBytes / (Double(with.taskMib) * 1_048_576) * 100
      say("  \(mark(share <= 2)) \(what): \(String(format: "%.2f", share)) % of a footprint sent (≤ 2)")
      let fewer = without.requests / max(with.requests, 1)
      say("  \(mark(fewer >= 100)) \(what): \(String(format: "%.0f", fewer)) times fewer requests (≥ 100)")
      say(
        "  \(mark(with.ratio <= 1.05)) \(what): \(String(format: "%.3f", with.ratio)) of the time with all pages here (≤ 1.05)"
      )
    }
  }
}
