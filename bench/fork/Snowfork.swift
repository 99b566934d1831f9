import BenchSupport
import Foundation

/// The programs under test, with a run-time directory and a state of their own.
final class Snowfork: Sendable {
  private let sfctl: String
  private let environment: [String: String]
  private let image: String

  /// `programs` holds sfctl, sfd and sf-memtap. The daemon starts with the first command.
  init(programs: String, image: String, in workspace: Workspace) throws {
    sfctl = "\(programs)/sfctl"
    let state = "\(workspace.root)/state"
    environment = ["SNOWFORK_RUN": "\(workspace.root)/run", "SNOWFORK_STATE": state]
    self.image = image
    try FileManager.default.createDirectory(atPath: state, withIntermediateDirectories: true)
  }

  struct Fork: Decodable {
    var ticket: String
    var forkUs: Double
    var ticketUs: Double
    var parentPauseUs: Double
    var descriptorBytes: Double
    var clones: [Clone]
    var phases: [Phase]
    var freePages: Double
    /// From the start of sfctl to the end of its output: ticket, fork, and the command itself.
    var commandUs: Double?

    struct Clone: Decodable {
      var vmid: Int
      var name: String
      var host: String
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

  struct Statistics: Decodable {
    var bytesReceived: Double
    var pagesAvoided: Double
    var remoteFaultUs: Quantiles
    var mcdist: Mcdist

    struct Quantiles: Decodable {
      var p50: Double
      var p99: Double
    }
    struct Mcdist: Decodable {
      var requests: Double
      var served: Double
      var lockstepSuppressed: Double
      var retransmitted: Double
      var bytesSent: Double
    }
  }

  func statistics(_ target: String) throws -> Statistics {
    try decode(Statistics.self, try call(["stats", target, "--json"]))
  }

  /// Hosts h1 … hN on this machine; from now on all is on h1 unless it is placed elsewhere.
  func labUp(hosts: Int) throws { _ = try call(["lab", "up", "--hosts", "\(hosts)"]) }
  /// For a fork onto all hosts of the lab but its parent's.
  static func onOthers(_ hosts: Int) -> [String] { (2...hosts).flatMap { ["--host", "h\($0)"] } }
  func labDown() throws { _ = try call(["lab", "down"]) }

  /// What the host's interface has sent, from the counters of its network namespace.
  func sentBytes(of host: String) throws -> Double {
    let table = String(
      decoding: try call(["lab", "exec", host, "--", "cat", "/proc/self/net/dev"]), as: UTF8.self)
    let sent = table.split(separator: "\n").filter { $0.contains(":") && !$0.contains("lo:") }.compactMap {
      line in
      line.split(separator: ":")[1].split(separator: " ").dropFirst(8).first.flatMap { Double($0) }
    }
    return sent.reduce(0, +)
  }

  /// `image`: another than the one that all others are of.
  func start(_ name: String, _ size: GuestSize, image other: String? = nil, _ options: [String] = []) throws {
    _ = try call(
      ["vm", "start", name, "--image", other ?? image, "--memory", "\(size.ramMib)M", "--json"] + options)
    if size.inUseMib > 0 { _ = try execute(on: name, ["sf-load", "fill", "\(size.inUseMib)"]) }
  }

  func fork(_ name: String, clones: Int, _ options: [String] = []) throws -> Fork {
    try self.clones(clones, ["fork", name] + options)
  }

  func clone(_ snapshot: String, clones: Int, _ options: [String] = []) throws -> Fork {
    try self.clones(clones, ["clone", snapshot] + options)
  }

  private func clones(_ clones: Int, _ arguments: [String]) throws -> Fork {
    let watch = Stopwatch()
    let data = try call(arguments + ["-n", "\(clones)", "--json"])
    let commandUs = watch.microseconds
    var fork = try decode(Fork.self, data)
    fork.commandUs = commandUs
    guard fork.clones.count == clones else {
      throw BenchError("\(clones) clones were asked for and \(fork.clones.count) granted")
    }
    return fork
  }

  func keepSnapshot(of name: String, as snapshot: String) throws {
    _ = try call(["snapshot", "create", name, snapshot])
  }
  func removeSnapshot(_ name: String) throws { _ = try call(["snapshot", "rm", name]) }

  func kill(_ ticket: String) throws { _ = try call(["kill", ticket]) }
  func destroy(_ name: String) throws { _ = try call(["vm", "destroy", name]) }

  func execute(on name: String, _ arguments: [String]) throws -> String {
    String(decoding: try call(["exec", name, "--"] + arguments), as: UTF8.self)
  }

  func machines() throws -> [Machine] {
    struct List: Decodable { var vms: [Machine] }
    return try decode(List.self, try call(["ps", "--json"])).vms
  }

  func call(_ arguments: [String]) throws -> Data {
    try output(of: sfctl, arguments, environment: environment)
  }

  func decode<Value: Decodable>(_ type: Value.Type, _ data: Data) throws -> Value {
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    return try decoder.decode(type, from: data)
  }
}
