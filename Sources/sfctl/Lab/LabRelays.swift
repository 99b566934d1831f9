import Foundation
import LinuxSystem
import Wire

/// The relays of hosts whose link is limited: one process a host.
extension Lab {
  /// There from when the relay forwards; the relay ends when it is gone.
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
      let deadline = ContinuousClock.now + .seconds(30)
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
}
