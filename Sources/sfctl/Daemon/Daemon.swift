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

  /// Runs `body` with a client, a daemon having been started if none answered.
  /// Whatever fails is thrown as a `Failure`, except what `body` throws on purpose (an `ExitCode`).
  static func call<R: Sendable>(_ body: @escaping @Sendable (Client) async throws -> R) async throws -> R {
    let paths = RuntimePaths.fromEnvironment()
    try await DaemonStarter(paths).ensureRunning()
    return try await connected(paths, body)
  }

  /// The same of a daemon that runs; none is started to be told to end. Nil: none runs.
  static func callRunning<R: Sendable>(_ body: @escaping @Sendable (Client) async throws -> R) async throws
    -> R?
  {
    let paths = RuntimePaths.fromEnvironment()
    guard try DaemonStarter(paths).answers() else { return nil }
    return try await connected(paths, body)
  }

  private static func connected<R: Sendable>(
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
