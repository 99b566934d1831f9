import Foundation
import Support
import Testing

/// Unmodified programs whose blocks run in clones: what they print and how they end is the same as without.
@Suite("Blocks of programs in clones", .serialized, .ownHost)
struct OffloadTests {
  private let host: TestHost

  init() throws {
    host = try #require(TestHost.here)
    try host.device()
  }

  struct Report: Decodable {
    var programStatus: Int
    var watched: Bool
    var calls: Int
    var offloaded: Int
    var ranAtHome: Int
    var conflicts: Int
    var dropped: Int
    var cameHomeEarly: Int
    var bytesHome: Int
    var takeovers: Int
    var keptCalls: Int
  }

  private func run(
    _ program: [String], block: String = "block", options: [String] = [], fault: String? = nil,
    vm: String = "dev"
  ) throws -> (outcome: Command.Outcome, report: Report) {
    let faults = fault.map { ["env", "SF_OFFLOAD_FAULT=" + $0] } ?? []
    let outcome = try host.start(
      ["exec", vm, "--"] + faults + ["sf-offload", "--block", block, "--report", "/tmp/report"] + options + [
        "--"
      ]
        + program
    ).wait(seconds: 600)
    // They are ended by a process that nobody waits for; the suite looks that they are.
    _ = eventually(seconds: 15) { host.hasNoClones }
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    let report = try host.inside(vm, "cat", "/tmp/report")
    return (outcome, try decoder.decode(Report.self, from: Data(report.utf8)))
  }

  /// The same output and the same end as without sf-offload.
  private func compare(
    _ program: [String], block: String = "block", options: [String] = [], fault: String? = nil,
    vm: String = "dev"
  ) throws -> Report {
    let plain = try host.start(["exec", vm, "--"] + program).wait()
    let (outcome, report) = try run(program, block: block, options: options, fault: fault, vm: vm)
    #expect(outcome.text == plain.text && outcome.error == plain.error, "\(program) \(fault ?? "")")
    #expect(outcome.status == plain.status && report.programStatus == Int(plain.status))
    #expect(report.calls == report.offloaded + report.ranAtHome)
    return report
  }

  @Test(
    "Memory, registers, files and signal state come back",
    arguments: [
      "static", "heap", "mappings", "stack", "floats", "file", "big", "recursive", "handler", "jump",
    ])
  func whole(kind: String) throws {
    let report = try compare(["sf-blocks", kind, "2"])
    #expect(report.calls == 2 && report.offloaded == 2 && report.takeovers == 0)
    // A jump out of the block ends at the next call that is home's; all others at the block's end.
    #expect(report.cameHomeEarly == (kind == "jump" ? 2 : 0))
  }

  @Test(
    "A block comes home before what must be done there: children, output, signals, its end",
    arguments: ["home", "print", "raise", "exit", "fault", "caught"])
  func early(kind: String) throws {
    let report = try compare(["sf-blocks", kind, "2"])
    #expect(report.calls >= 1 && report.offloaded == report.calls && report.cameHomeEarly == report.calls)
  }

  @Test("A block between cc_start and cc_stop; of another name they do nothing")
  func marked() throws {
    let report = try compare(["sf-blocks", "marked", "2"], block: "marked block")
    #expect(report.calls == 2 && report.offloaded == 2)
    #expect(try compare(["sf-blocks", "marked", "1"], block: "block").calls == 0)
  }

  @Test(
    "A clone that is kept runs the later calls, too: what the program has changed since goes to it",
    arguments: ["static", "heap", "mappings", "stack", "floats", "big", "recursive", "marked", "changes"])
  func kept(kind: String) throws {
    let report = try compare(
      ["sf-blocks", kind, "5"], block: kind == "marked" ? "marked block" : "block",
      options: ["--clone", "kept"])
    #expect(report.calls == 5 && report.offloaded == 5 && report.keptCalls == 4, "\(report)")
    #expect(eventually { host.hasNoClones })
  }

  @Test(
    "In a kept clone all but memory and the clock is home's",
    arguments: ["file", "handler", "home", "print", "raise", "jump", "exit", "caught"])
  func keptEarly(kind: String) throws {
    let report = try compare(["sf-blocks", kind, "4"], options: ["--clone", "kept"])
    #expect(report.offloaded == report.calls && report.keptCalls == report.calls - 1, "\(report)")
    #expect(report.cameHomeEarly >= report.keptCalls, "\(report)")
  }

  @Test(
    "What goes to a kept clone is cut or damaged, the clone or the tracer dies over it: the program is right",
    arguments: ["changes-cut", "changes-damage", "clone-applying", "tracer-sending", "clone-running", "lie"])
  func keptFaults(step: String) throws {
    let report = try compare(
      ["sf-blocks", "changes", "4"], options: ["--clone", "kept"], fault: step + ":3")
    // The third call runs at home, the fourth in a new clone.
    #expect(report.offloaded == 3 && report.dropped == 1 && report.keptCalls == 1, "\(report)")
    #expect(report.takeovers == (step.hasPrefix("tracer-") ? 1 : 0))
  }

  @Test("A program with threads stays at home where whole pages are merged; by words its block goes")
  func threads() throws {
    #expect(try compare(["sf-blocks", "threads", "2"]).ranAtHome == 2)
    let report = try compare(["sf-blocks", "threads", "2"], options: ["--merge", "words"])
    #expect(report.offloaded + report.conflicts == 2)
  }

  @Test("--mode never, a limit of time, a function that is not there, a program that is not there")
  func options() throws {
    #expect(try compare(["sf-blocks", "static", "2"], options: ["--mode", "never"]).ranAtHome == 2)
    #expect(try compare(["sf-blocks", "static", "1"], options: ["--limit", "0.001"]).ranAtHome == 1)
    let none = try run(["sf-blocks", "static", "1"], block: "nothing")
    #expect(none.report.calls == 0 && none.outcome.status == 7)
    #expect(none.outcome.error.contains("it has no function nothing"))
    #expect(try run(["/nonexistent"]).outcome.status == 127)
    #expect(try host.sfctl("exec", "dev", "--", "sf-offload", "--block").status == 2)
  }

  @Test("--mode auto leaves at home what is shorter than a fork, and keeps what it has learnt")
  func automatic() throws {
    // Measuring a call at home is not seen either where blocks call themselves, or are left by a jump.
    let profilePath = "/var/lib/snowflock/offload-profile"
    for kind in ["recursive", "jump", "raise", "exit", "fault", "static"] {
      _ = try host.inside("dev", "rm", "-f", profilePath)
      let report = try compare(["sf-blocks", kind, "3"], options: ["--mode", "auto"])
      #expect(report.calls >= 1 && report.ranAtHome == report.calls)
    }
    #expect(
      try compare(["sf-blocks", "marked", "3"], block: "marked block", options: ["--mode", "auto"]).calls == 3
    )
    let profile = try host.inside("dev", "cat", profilePath)
    #expect(profile.hasPrefix("snowfork-offload-profile 2\n") && profile.contains("block sf-blocks block "))
    // A damaged one is begun anew.
    _ = try host.inside("dev", "sh", "-c", "echo damaged >" + profilePath)
    #expect(try compare(["sf-blocks", "static", "3"], options: ["--mode", "auto"]).calls == 3)
    // Now it is known: seven runs are not watched, and the next one is.
    for run in 1...8 {
      let report = try compare(["sf-blocks", "static", "3"], options: ["--mode", "auto"])
      #expect(report.watched == (run == 8) && report.calls == (run == 8 ? 3 : 0), "run \(run)")
    }
    #expect(try run(["/nonexistent"], options: ["--mode", "auto"]).outcome.status == 127)
  }

  @Test("Programs that nobody here wrote: bash and Python, a function of theirs away")
  func others() throws {
    try host.device("debian", image: "debian", memory: "384M")
    defer { _ = try? host.sfctl("vm", "destroy", "debian") }
    let shell = "for i in 1 2 3; do x=$((x + i)); done; echo $x; echo b a | tr ' ' '\\n' | sort; exit 5"
    let bash = try compare(
      ["bash", "-c", shell], block: "evalexp", options: ["--limit", "60"], vm: "debian")
    #expect(bash.calls == 3 && bash.offloaded == 3)
    let python = try compare(
      ["python3", "-c", "print(sorted([5, 3, 9]), 2.5 ** 7); exit(3)"], block: "PyList_Sort",
      options: ["--limit", "60"], vm: "debian")
    #expect(python.calls >= 1)
  }

  @Test(
    "The clone dies, the link is cut, the result is damaged, the clone lies, the tracer is killed: the program is right",
    arguments: [
      "clone-started", "clone-running", "clone-collecting", "clone-sending", "clone-power", "link-home",
      "link-out",
      "damage", "lie", "deadline", "tracer-entry", "tracer-forked", "tracer-receiving", "tracer-preparing",
      "tracer-committing", "tracer-writing", "tracer-committed",
    ])
  func faults(step: String) throws {
    let report = try compare(["sf-blocks", "mappings", "2"], fault: step + ":1")
    #expect(report.calls == 2)
    // After the merge has begun to write, it is brought to its end; before that, the block runs at home.
    let isMerged = ["tracer-committing", "tracer-writing", "tracer-committed"].contains(step)
    #expect(report.offloaded == (isMerged ? 2 : 1) && report.dropped == (isMerged ? 0 : 1))
    #expect(report.takeovers == (step.hasPrefix("tracer-") ? 1 : 0))
  }

  @Test(
    "A clone that is ended while it is being made is killed, once, and leaves no ticket",
    arguments: ["link-out", "deadline"])
  func endedWhileMade(step: String) throws {
    func lost() -> [Substring] { host.daemonLog.split(separator: "\n").filter { $0.contains(" is lost: ") } }
    let before = lost().count
    #expect(try compare(["sf-blocks", "mappings", "12"], fault: step).ranAtHome == 12)
    #expect(lost().count == before, "\(lost().suffix(3))")
    #expect(eventually { host.hasNoClones })
  }

  @Test("200 calls, each with a fault at a random step")
  func manyFaults() throws {
    var calls = 0
    for seed in 1...8 {
      let kind = ["mappings", "heap", "static", "file"][seed % 4]
      calls += try compare(["sf-blocks", kind, "25"], fault: "random:\(seed)").calls
      // What a killed tracer had asked for is given back as soon as it is granted; a ticket's time limit is not so near.
      #expect(eventually { host.hasNoClones }, "a ticket is left by seed \(seed)")
    }
    #expect(calls == 200)
  }
}
