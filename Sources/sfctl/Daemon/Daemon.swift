import Foundation
import GRPCCore
import GRPCNIOTransportHTTP2
import Wire

/// A connection to the daemon of this machine.
enum Daemon {
  typealias Client = Snowfork_V1_Snowfork.Client<HTTP2ClientTransport.Posix>

  /// 32 clones may each bring home a result of 1 MiB in one answer.
  static let options: CallOptions = {
    var options = CallOptions.defaults
    options.maxResponseMessageBytes = 256 << 20
    return options
  }()

  /// Of this machine's daemon; of host h1's while a lab is up (unless SNOWFORK_LAB is 0).
  static var paths: RuntimePaths {
    let outer = RuntimePaths.fromEnvironment()
    return lab.map { $0.paths(of: $0.hosts[0], outer) } ?? outer
  }

  private static var lab: Lab? {
    ProcessInfo.processInfo.environment["SNOWFORK_LAB"] == "0" ? nil : Lab.load(.fromEnvironment())
  }

  /// A daemon answers when this returns.
  static func ensureRunning() async throws {
    let starter = DaemonStarter(paths)
    if let lab, try !starter.answers() {
      // In its host's network.
      try lab.sfctl(lab.hosts[0], ["host", "ls"], .fromEnvironment())
    }
    try await starter.ensureRunning()
  }

  /// Runs `body` with a client, a daemon having been started if none answered.
  /// Whatever fails is thrown as a `Failure`, except what `body` throws on purpose (an `ExitCode`).
  static func call<R: Sendable>(_ body: @escaping @Sendable (Client) async throws -> R) async throws -> R {
    try await ensureRunning()
    return try await connected(paths, body)
  }

  /// The same of a daemon that runs; none is started to be told to end. Nil: none runs.
  static func callRunning<R: Sendable>(_ body: @escaping @Sendable (Client) async throws -> R) async throws
    -> R?
  {
    let paths = paths
    guard try DaemonStarter(paths).answers() else { return nil }
    return try await connected(paths, body)
  }

  static func connected<R: Sendable>(
    _ paths: RuntimePaths, _ body: @escaping @Sendable (Client) async throws -> R
  ) async throws -> R {
    do {
      return try await withGRPCClient(
        transport: .http2NIOPosix(
          target: .unixDomainSocket(path: paths.socket), transportSecurity: .plaintext)
      ) { try await body(Client(wrapping: $0)) }
    } catch let error as RPCError {
      throw Failure(error)
    }
  }
}

extension StreamingClientResponse {
  /// Passes the progress messages of a streamed answer to `progress` and returns the last message that `final` takes.
  func last<Final>(
    progress: (Message) async -> Void, final: (Message) -> Final?
  ) async throws -> Final {
    var result: Final?
    for try await message in messages {
      if let last = final(message) { result = last } else { await progress(message) }
    }
    guard let result else {
      throw Failure("the daemon ended its answer without a result. See its log for why.")
    }
    return result
  }
}
