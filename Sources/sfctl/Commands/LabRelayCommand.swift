import ArgumentParser
import CloneNetwork
import Foundation
import LinuxSystem
import Wire

/// The slow link of one host, for as long as the lab is there. `lab up` starts it.
struct LabRelayCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "relay", abstract: "Be the link of a host of the lab.", shouldDisplay: false)

  @Option(help: "SNOWFORK_RUN of the lab's maker.") var outer: String
  @Argument(help: "The host.") var host: String

  func run() throws {
    signal(SIGHUP, SIG_IGN)
    let paths = RuntimePaths(run: outer, state: "")
    guard let lab = Lab.load(paths) else { throw Failure("there is no lab in \(outer).", .notFound) }
    let host = try lab.host(host)
    guard let queues = host.link.queues else { throw Failure("the link of \(host.name) has no limits.") }
    guard let near = try NetworkNamespace(named: host.namespace),
      let far = try NetworkNamespace(named: lab.bridge)
    else { throw Failure("the lab in \(outer) has no network.") }
    let relay = try LinkRelay(
      near: "eth0", in: near, far: lab.port(of: host), in: far, up: queues.up, down: queues.down)
    let file = Lab.relayFile(host, paths)
    try "\(getpid())\n".write(toFile: file, atomically: true, encoding: .utf8)
    try relay.run { access(file, F_OK) == 0 }
  }
}
