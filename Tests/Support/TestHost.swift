import Foundation

/// A host of a suite's own: an sfd with private run and state directories, driven through sfctl as a user would.
public final class TestHost: Sendable {
  @TaskLocal public static var here: TestHost?

  /// Short: a Unix socket's path has 107 bytes at most.
  public let directory: String
  public var run: String { directory + "/run" }
  public var state: String { directory + "/state" }
  public var memory: String { run + "/mem" }
  /// What its daemons take for /sys/class/power_supply: nothing there, and they are at the mains.
  public var powerSupplies: String { directory + "/power" }
  public var environment: [String: String] {
    ["SNOWFORK_RUN": run, "SNOWFORK_STATE": state, "SNOWFORK_POWER_SUPPLIES": powerSupplies]
  }

  public init() throws {
    directory = "/tmp/snowfork-test-" + String(UInt32.random(in: 0...UInt32.max), radix: 36)
    for path in [run, state + "/images", directory + "/scratch"] {
      try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }
    for image in ["mini", "debian", "debian-disk"] {
      try FileManager.default.createSymbolicLink(
        atPath: state + "/images/" + image, withDestinationPath: try ProjectFiles.image(image))
    }
  }

  // MARK: sfctl

  public func start(_ arguments: [String], input: Data? = nil) throws -> Command {
    try Command(
      ProjectFiles.programs + "/sfctl", arguments, environment: environment, input: input,
      scratch: directory + "/scratch")
  }

  public func sfctl(_ arguments: String..., input: Data? = nil) throws -> Command.Outcome {
    try start(arguments, input: input).wait()
  }

  /// Runs sfctl with `--json`; throws unless it succeeded and said nothing but one document.
  public func document<Document: Decodable>(_ arguments: String..., as type: Document.Type = Document.self)
    throws -> Document
  {
    try document(arguments, as: type)
  }

  private func document<Document: Decodable>(_ arguments: [String], as: Document.Type) throws -> Document {
    let outcome = try start([arguments[0]] + arguments.dropFirst() + ["--json"]).wait()
    guard outcome.status == 0 else { throw Failed(arguments, outcome) }
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    return try decoder.decode(Document.self, from: outcome.output)
  }

  public struct Failed: Error, CustomStringConvertible {
    public var description: String

    init(_ arguments: [String], _ outcome: Command.Outcome) {
      description =
        "sfctl \(arguments.joined(separator: " ")): status \(outcome.status): \(outcome.error)\(outcome.text)"
    }
  }

  // MARK: guests

  /// Starts the VM, unless it runs.
  public func device(
    _ name: String = "dev", image: String = "mini-tests", memory: String = "256M", vcpus: Int = 1,
    disk: String? = nil, options: [String] = []
  ) throws {
    if try vms().contains(where: { $0.name == name && $0.state == "running" }) { return }
    let path = image.hasPrefix("/") ? image : try ProjectFiles.image(image)
    let arguments =
      ["vm", "start", name, "--image", path, "--memory", memory, "--vcpus", "\(vcpus)"]
      + (disk.map { ["--disk", $0] } ?? []) + options
    let outcome = try start(arguments).wait()
    guard outcome.status == 0 else { throw Failed(arguments, outcome) }
  }

  public func vms() throws -> [VMDocument] { try document("ps", as: VMList.self).vms }

  public func vm(_ name: String) throws -> VMDocument? { try vms().first { $0.name == name } }

  /// Whether no ticket is held and no clone is there, ending ones included.
  public var hasNoClones: Bool {
    (try? tickets().isEmpty && vms().allSatisfy { $0.role == "parent" }) == true
  }

  public func tickets() throws -> [String] {
    struct List: Decodable {
      struct Ticket: Decodable { var ticket: String }
      var tickets: [Ticket]
    }
    return try document("ticket", "ls", as: List.self).tickets.map(\.ticket)
  }

  public func snapshots() throws -> [String] {
    struct List: Decodable {
      struct Snapshot: Decodable { var snapshot: String }
      var snapshots: [Snapshot]
    }
    return try document("snapshot", "ls", as: List.self).snapshots.map(\.snapshot)
  }

  public func stats(_ target: String) throws -> StatsDocument { try document("stats", target) }

  /// Runs a command in a guest. Its standard output; throws unless it ended well.
  @discardableResult
  public func inside(_ vm: String, _ command: String...) throws -> String {
    let arguments = ["exec", vm, "--"] + command
    let outcome = try start(arguments).wait()
    guard outcome.status == 0 else { throw Failed(arguments, outcome) }
    return outcome.text
  }

  public func lines(inside vm: String, _ command: String) throws -> [String] {
    let arguments = ["exec", vm, "--"] + command.split(separator: " ").map(String.init)
    let outcome = try start(arguments).wait()
    guard outcome.status == 0 else { throw Failed(arguments, outcome) }
    return outcome.lines
  }

  /// Forks for the operator, hands the clones to `body`, and ends them whatever happens there.
  public func withFork(
    of vm: String = "dev", clones: Int, options: [String] = [], _ body: (ForkDocument) throws -> Void
  ) throws {
    let fork = try document(["fork", vm, "-n", "\(clones)"] + options, as: ForkDocument.self)
    defer {
      _ = try? sfctl("kill", fork.ticket)
      _ = try? sfctl("join", fork.ticket)
    }
    try body(fork)
  }

  /// An image like another, with more on the kernel's command line.
  public func image(_ name: String, like other: String, withParameter parameter: String) throws -> String {
    let original = try ProjectFiles.image(other)
    let copy = state + "/images/" + name
    try FileManager.default.createDirectory(atPath: copy, withIntermediateDirectories: true)
    for file in ["vmlinuz", "initrd"] where !FileManager.default.fileExists(atPath: copy + "/" + file) {
      try FileManager.default.createSymbolicLink(
        atPath: copy + "/" + file, withDestinationPath: original + "/" + file)
    }
    let manifest = try String(contentsOfFile: original + "/image.json", encoding: .utf8)
    try manifest.replacingOccurrences(of: "\"command_line\": \"", with: "\"command_line\": \"\(parameter) ")
      .write(toFile: copy + "/image.json", atomically: true, encoding: .utf8)
    return copy
  }

  // MARK: the daemon

  public var daemonLog: String {
    let logs = [state + "/sfd.log"] + (1...8).map { state + "/lab/h\($0)/sfd.log" }
    return logs.compactMap { try? String(contentsOfFile: $0, encoding: .utf8) }.joined()
  }

  /// The process of this host that bears the name, as `ps` would find it.
  public func pid(of program: String) -> Int32? {
    LeftBehind.processes(of: self).first { $0.name == program }?.pid
  }

  /// After a daemon's death libvirt holds the names of dead machines until process 1 has collected their QEMUs. Waits for
  /// that, so that the next test's clones are called `dev.1` and so on; for a minute at most.
  func untilNamesAreFree(but names: [String]) {
    let states = [state] + (1...8).map { state + "/lab/h\($0)" }
    _ = eventually(seconds: 60) {
      states.allSatisfy { state in
        let files = (try? FileManager.default.contentsOfDirectory(atPath: state + "/libvirt/run/qemu")) ?? []
        return files.allSatisfy { !$0.hasSuffix(".xml") || names.contains(String($0.dropLast(4))) }
      }
    }
  }

  /// Kills sfd, as a crash would; the next sfctl starts another.
  public func killDaemon() throws {
    guard let daemon = pid(of: "sfd") else { throw Command.Failed(description: "no sfd runs") }
    kill(daemon, SIGKILL)
    if !eventually({ pid(of: "sfd") != daemon }) {
      throw Command.Failed(description: "sfd \(daemon) does not end")
    }
  }
}
