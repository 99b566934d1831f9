import GRPCCore
import GRPCNIOTransportHTTP2
import Wire

extension Daemon {
  typealias Replicas = Snowfork_V1_Replicas.Client<HTTP2ClientTransport.Posix>

  /// As `call`, of the daemon's service for standbys.
  static func callReplicas<R: Sendable>(
    _ body: @escaping @Sendable (Replicas) async throws -> R
  ) async throws -> R {
    try await ensureRunning()
    do {
      return try await withGRPCClient(
        transport: .http2NIOPosix(
          target: .unixDomainSocket(path: paths.socket), transportSecurity: .plaintext)
      ) { try await body(Replicas(wrapping: $0)) }
    } catch let error as RPCError {
      throw Failure(error)
    }
  }
}
