import Foundation
import Glibc

/// The programs under test, with a run-time directory and a state of their own.
final class Snowfork {
  private let sfctl: String
  private let environment: [String: String]
  private let image: String

  /// `programs` holds sfctl, sfd and sf-memtap. The daemon starts with the first command.
  init(programs: String, image: String, in workspace: Workspace) throws {
    let sfctl = "\(programs)/sfctl"
    let run = "\(workspace.root)/run"
    let environment = ["SNOWFORK_RUN": run, "SNOWFORK_STATE": "\(workspace.root)/state"]
    self.sfctl = sfctl
    self.environment = environment
    self.image = image
    try FileManager.default.createDirectory(
      atPath: "\(workspace.root)/state", withIntermediateDirectories: true)
    workspace.atEnd { Snowfork.endAll(sfctl: sfctl, environment: environment, run: run) }
  }

  struct Fork: Decodable {
    var ticket: String
    var forkUs: Double
    var ticketUs: Double
    var parentPauseUs: Double
    var descriptorBytes: Double
    var clones: [Clone]
    var phases: [Phase]
    /// From the start of sfctl to the end of its output: ticket, fork, and the command itself.
    var commandUs: Double?

    struct Clone: Decodable {
      var vmid: Int
      var name: String
      var activateUs: Double
      var readyUs: Double
    }
    struct Phase: Decodable {
      var phase: String
      var beginUs: Double
      var endUs: Double
    }
  }

  struct Machine: Decodable {
    var name: String
    var pid: pid_t
    var role: String
    var vmid: Int
    var privateBytes: Double
    var presentBytes: Double
  }

  func start(_ name: String, _ size: GuestSize) throws {
    _ = try call(["vm", "start", name, "--image", image, "--memory", "\(size.ramMib)M", "--json"])
    if size.inUseMib > 0 { _ = try execute(on: name, ["sf-load", "fill", "\(size.inUseMib)"]) }
  }

  func fork(_ name: String, clones: Int) throws -> Fork {
    let watch = Stopwatch()
    let data = try call(["fork", name, "-n", "\(clones)", "--json"])
    let commandUs = watch.microseconds
    var fork = try Self.decode(Fork.self, data)
    fork.commandUs = commandUs
    guard fork.clones.count == clones else {
      throw BenchError("\(clones) clones were asked for and \(fork.clones.count) granted")
    }
    return fork
  }

  func kill(_ ticket: String) throws { _ = try call(["kill", ticket]) }
  func destroy(_ name: String) throws { _ = try call(["vm", "destroy", name]) }

  func execute(on name: String, _ arguments: [String]) throws -> String {
    String(decoding: try call(["exec", name, "--"] + arguments), as: UTF8.self)
  }

  func machines() throws -> [Machine] {
    struct List: Decodable { var vms: [Machine] }
    return try Self.decode(List.self, try call(["ps", "--json"])).vms
  }

  private func call(_ arguments: [String]) throws -> Data {
    try output(of: sfctl, arguments, environment: environment)
  }

  private static func decode<Value: Decodable>(_ type: Value.Type, _ data: Data) throws -> Value {
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    return try decoder.decode(type, from: data)
  }

  /// Ends VMs, daemon and pager, and takes the tmpfs away.
  private static func endAll(sfctl: String, environment: [String: String], run: String) {
    struct Status: Decodable { var memtapPid: pid_t }
    struct List: Decodable {
      struct Machine: Decodable { var name: String, role: String, pid: pid_t }
      var vms: [Machine]
    }
    func call<Value: Decodable>(_ type: Value.Type, _ arguments: [String]) -> Value? {
      (try? output(of: sfctl, arguments, environment: environment)).flatMap {
        try? decode(type, $0)
      }
    }
    guard FileManager.default.fileExists(atPath: run) else { return }
    let status = call(Status.self, ["daemon", "status", "--json"])
    let machines = call(List.self, ["ps", "--json"])?.vms ?? []
    for machine in machines where machine.role == "parent" {
      _ = try? output(of: sfctl, ["vm", "destroy", machine.name], environment: environment)
    }
    for machine in machines { endProcess(machine.pid, markedBy: run) }
    _ = try? output(of: sfctl, ["daemon", "stop"], environment: environment)
    if let pid = status?.memtapPid { endProcess(pid, markedBy: "sf-memtap") }
    umount2("\(run)/mem", CInt(MNT_DETACH))
  }
}
