import Foundation
import LinuxSystem
import Wire

/// The relays of hosts whose link is limited: one process a host.
extension Lab {
  /// There from when the relay forwards, and holds the link's name; the relay ends when it is gone.
  static func relayFile(_ host: Host, _ outer: RuntimePaths) -> String {
    directory(outer) + "/\(host.name).relay"
  }

  /// Each forwards when this returns.
  func startRelays(_ outer: RuntimePaths) async throws {
    for host in hosts where host.link.isLimited {
      let own = paths(of: host, outer)
      let log = own.state + "/relay.log"
      let pid = try DetachedProcess.spawn(
        "/usr/bin/env",
        arguments: environment(of: host, outer).map { "\($0)=\($1)" }
          + [Self.program, "lab", "relay", "--outer", outer.run, host.name], logPath: log)
      let deadline = ContinuousClock.now + Self.relayLimit
      while !FileManager.default.fileExists(atPath: Self.relayFile(host, outer)) {
        guard !DetachedProcess.hasExited(pid), ContinuousClock.now < deadline else {
          let said = (try? String(contentsOfFile: log, encoding: .utf8)) ?? ""
          throw Failure(
            "cannot make the link of \(host.name): \(said.split(separator: "\n").last ?? "its relay does not begin")."
          )
        }
        try await Task.sleep(for: .milliseconds(5))
      }
    }
  }

  /// Gives a host that has a relay another link; frames go by it when this returns.
  mutating func setLink(_ link: Link, on host: Host, _ outer: RuntimePaths) async throws {
    let file = Self.relayFile(host, outer)
    guard FileManager.default.fileExists(atPath: file) else {
      throw Failure(
        "cannot change the link of \(host.name): it has no relay. Make a lab with --link \(host.name)=wifi.",
        .refused)
    }
    hosts[hosts.firstIndex { $0.name == host.name }!].link = link
    try save(outer)
    let deadline = ContinuousClock.now + Self.relayLimit
    while try String(contentsOfFile: file, encoding: .utf8) != link.rawValue {
      guard ContinuousClock.now < deadline else {
        throw Failure("cannot change the link of \(host.name): its relay does not answer. Take the lab down.")
      }
      try await Task.sleep(for: .milliseconds(20))
    }
  }

  private static let relayLimit = Duration.seconds(30)
}
