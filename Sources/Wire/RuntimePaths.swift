import Foundation

/// Where sfctl and sfd meet, moved by `SNOWFORK_RUN` and `SNOWFORK_STATE`.
public struct RuntimePaths: Sendable {
  /// Sockets and guest memory: gone after a reboot.
  public var run: String
  /// Database, images, logs: kept.
  public var state: String

  public init(run: String, state: String) {
    self.run = run
    self.state = state
  }

  public static func fromEnvironment(
    _ environment: [String: String] = ProcessInfo.processInfo.environment
  ) -> RuntimePaths {
    func directory(_ variable: String, _ usual: String) -> String {
      environment[variable].flatMap { $0.isEmpty ? nil : $0 } ?? usual
    }
    return RuntimePaths(
      run: directory("SNOWFORK_RUN", "/run/snowfork"),
      state: directory("SNOWFORK_STATE", "/var/lib/snowfork"))
  }

  /// sfd listens here.
  public var socket: String { run + "/sfd.sock" }
  /// Held by the sfctl that is starting sfd.
  public var startLock: String { run + "/sfd-start.lock" }
  /// Held by sfd from its first to its last moment.
  public var daemonLock: String { run + "/sfd.lock" }
  /// What an sfd started by sfctl says.
  public var daemonLog: String { state + "/sfd.log" }
  /// One directory an image.
  public var images: String { state + "/images" }
}

/// The version of sfctl, sfd and sf-memtap: they are built together.
public let snowforkVersion = "0.1.0"
