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
    guard let near = try NetworkNamespace(named: host.namespace),
      let far = try NetworkNamespace(named: lab.bridge)
    else { throw Failure("the lab in \(outer) has no network.") }
    var rates = host.link.rates
    let relay = try LinkRelay(
      near: "eth0", in: near, far: lab.port(of: host), in: far, up: rates.up, down: rates.down)
    let file = Lab.relayFile(host, paths)
    func tell(_ link: Link) { try? link.rawValue.write(toFile: file, atomically: true, encoding: .utf8) }
    tell(host.link)
    try relay.run {
      guard access(file, F_OK) == 0 else { return false }
      if let link = Lab.load(paths)?.hosts.first(where: { $0.name == host.name })?.link, link.rates != rates {
        rates = link.rates
        relay.setRates(up: rates.up, down: rates.down)
        tell(link)
      }
      return true
    }
  }
}
