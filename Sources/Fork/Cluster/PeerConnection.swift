import GRPCCore
import GRPCNIOTransportHTTP2
import Synchronization
import Wire

/// A connection to another host's sfd: mutual TLS, the other's certificate checked for its host's name.
final class PeerConnection: Sendable {
  typealias Transport = HTTP2ClientTransport.Posix
  let name: String
  let peer: Snowfork_V1_Peer.Client<Transport>
  let snowfork: Snowfork_V1_Snowfork.Client<Transport>
  private let client: GRPCClient<Transport>
  private let ended = Atomic<Bool>(false)

  init(to member: ClusterMember, identity: ClusterFiles.Identity) throws {
    name = member.name
    let transport = try Transport(
      target: .ipv4(address: member.address, port: member.port),
      transportSecurity: .mTLS(
        certificateChain: [.bytes(Array(identity.certificatePEM.utf8), format: .pem)],
        privateKey: .bytes(Array(identity.keyPEM.utf8), format: .pem)
      ) { tls in
        tls.trustRoots = .certificates([.bytes(Array(identity.authorityPEM.utf8), format: .pem)])
      },
      config: .defaults { config in
        config.http2.authority = Authority.dnsName(ofHost: member.name)
        config.backoff.initial = .milliseconds(100)
        config.backoff.max = .seconds(1)
      })
    client = GRPCClient(transport: transport)
    peer = .init(wrapping: client)
    snowfork = .init(wrapping: client)
    Task { [client, weak self] in
      try? await client.runConnections()
      self?.ended.store(true, ordering: .relaxed)
    }
  }

  var hasEnded: Bool { ended.load(ordering: .relaxed) }
  func close() { client.beginGracefulShutdown() }
  deinit { client.beginGracefulShutdown() }
}

/// Lets only enrolled hosts in: the TLS handshake has checked that the authority signed the certificate, this checks
/// that its host is still a member.
struct MembersOnly: ServerInterceptor {
  let cluster: Cluster

  func intercept<Input: Sendable, Output: Sendable>(
    request: StreamingServerRequest<Input>, context: ServerContext,
    next:
      @Sendable (StreamingServerRequest<Input>, ServerContext) async throws -> StreamingServerResponse<Output>
  ) async throws -> StreamingServerResponse<Output> {
    guard let name = PeerListener.caller(context) else {
      throw RPCError(code: .unauthenticated, message: "it is not known which host calls. Enrol it.")
    }
    guard await cluster.isEnrolled(name) else {
      throw RPCError(code: .permissionDenied, message: "host \(name) is not enrolled in this cluster.")
    }
    return try await next(request, context)
  }
}
