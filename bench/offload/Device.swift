import BenchSupport
import Foundation

/// A lab of two hosts with a weak VM on the first, or one without a limit.
final class Device: Sendable {
  private let sfctl: String
  private let environment: [String: String]
  private let image: String

  /// `programs` holds sfctl, sfd and sf-memtap.
  init(programs: String, image: String, in workspace: Workspace) throws {
    sfctl = "\(programs)/sfctl"
    self.image = image
    let state = "\(workspace.root)/state"
    environment = ["SNOWFORK_RUN": "\(workspace.root)/run", "SNOWFORK_STATE": state]
    try FileManager.default.createDirectory(atPath: state, withIntermediateDirectories: true)
  }

  /// Two hosts near each other.
  func labUp() throws {
    try call(["lab", "up", "--hosts", "2", "--link", "wifi"])
    try setLink("lan")
  }

  /// The device's host, h1, is on that link now, and h2 in the cloud.
  func setLink(_ link: String) throws { try call(["lab", "link", link]) }

  func labDown() throws { try call(["lab", "down"]) }

  /// - Parameter cpuPercent: of one processor; nil: all of it.
  func start(_ name: String, cpuPercent: Int?) throws {
    try call(
      ["vm", "start", name, "--image", image, "--memory", "768M"]
        + (cpuPercent.map { ["--cpu-limit", "\($0)"] } ?? []))
  }

  /// Makes a standby on h2; returns when it is there. Its checkpoints come when they are asked for.
  func replicate(_ name: String) throws { try call(["replicate", name, "--to", "h2"]) }

  /// One more checkpoint now: the standby is what the device is.
  func checkpoint(_ name: String) throws { try call(["checkpoint", name]) }

  func destroy(_ name: String) throws { try call(["vm", "destroy", name]) }

  /// A run of a program: how it ended, what it wrote, and how long it took for whoever waited for it.
  struct Run {
    /// nil: it was ended after the limit.
    var status: Int32?
    var output: Data
    var microseconds: Double
    /// What this machine's host took of its processors meanwhile.
    var stolenPercent: Double
  }

  /// The program by itself.
  func run(_ program: BenchProgram, _ input: BenchProgram.Input, on name: String, limitS: Double) throws
    -> Run
  {
    try measure(
      ["exec", name, "--", "env"] + program.environment + input.command, limitS: limitS,
      program: input.command[0], vm: name, outputIsErrorToo: true)
  }

  /// What sf-offload has told: the contract's fields, and more.
  struct Report: Codable {
    /// False: the controller had the program run by itself.
    var watched: Bool
    var calls: Int
    var offloaded: Int
    var ranAtHome: Int
    var conflicts: Int
    var bytesOut: Double
    var bytesHome: Double
    var forwardUs: Double
    var runUs: Double
    var mergeUs: Double
  }

  /// The same with each call of the block where `mode` says. The program's output is on standard error then, and the
  /// report on standard output.
  func offload(
    _ program: BenchProgram, _ input: BenchProgram.Input, on name: String, mode: String, limitS: Double
  ) throws -> (run: Run, report: Report?) {
    var arguments = ["offload", name, "--to", "h2", "--mode", mode, "--json", "--block", program.block]
    for variable in program.environment { arguments += ["--env", variable] }
    let files = try measureBoth(
      arguments + ["--"] + input.command, limitS: limitS, program: input.command[0], vm: name)
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    let report = try? decoder.decode(Report.self, from: files.run.output)
    return (
      Run(
        status: files.run.status, output: files.errors, microseconds: files.run.microseconds,
        stolenPercent: files.run.stolenPercent), report
    )
  }

  // MARK: - sfctl

  @discardableResult
  private func call(_ arguments: [String]) throws -> Data {
    try output(of: sfctl, arguments, environment: environment)
  }

  private func measure(
    _ arguments: [String], limitS: Double, program: String, vm: String, outputIsErrorToo: Bool
  ) throws -> Run {
    let both = try measureBoth(arguments, limitS: limitS, program: program, vm: vm)
    var run = both.run
    run.output += both.errors
    return run
  }

  /// Ends the program in the guest, and sfctl, when the limit has passed.
  private func measureBoth(
    _ arguments: [String], limitS: Double, program: String, vm: String
  ) throws -> (run: Run, errors: Data) {
    let directory = FileManager.default.temporaryDirectory
    let names = ["out", "err"].map { directory.appendingPathComponent("sfbench-\(UUID()).\($0)") }
    defer { for name in names { try? FileManager.default.removeItem(at: name) } }
    for name in names { _ = FileManager.default.createFile(atPath: name.path, contents: nil) }
    let process = Process()
    process.executableURL = URL(fileURLWithPath: sfctl)
    process.arguments = arguments
    process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
    process.standardInput = FileHandle.nullDevice
    process.standardOutput = try FileHandle(forWritingTo: names[0])
    process.standardError = try FileHandle(forWritingTo: names[1])
    let begin = ContinuousClock.now
    let stolen = StolenTime()
    try process.run()
    var isOver = false
    while process.isRunning {
      if !isOver && ContinuousClock.now - begin > .seconds(limitS) {
        isOver = true
        _ = try? call(["exec", vm, "--", "pkill", "-9", "-f", program])
        process.terminate()
      }
      usleep(20_000)
    }
    process.waitUntilExit()
    let microseconds = (ContinuousClock.now - begin) / .microseconds(1)
    let data = try names.map { try Data(contentsOf: $0) }
    return (
      Run(
        status: isOver ? nil : process.terminationStatus, output: data[0], microseconds: microseconds,
        stolenPercent: stolen.percent),
      data[1]
    )
  }
}
