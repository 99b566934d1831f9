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
  let standbys: Snowfork_V1_Replicas.Client<Transport>
  let replicas: Snowfork_V1_ReplicaPeer.Client<Transport>
  private let client: GRPCClient<Transport>
  private let ended: Ended
  private let running: Task<Void, Never>

  private final class Ended: Sendable {
    let flag = Atomic<Bool>(false)
  }

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
    let client = GRPCClient(transport: transport)
    self.client = client
    peer = .init(wrapping: client)
    snowfork = .init(wrapping: client)
    standbys = .init(wrapping: client)
    replicas = .init(wrapping: client)
    let ended = Ended()
    self.ended = ended
    running = Task {
      try? await client.runConnections()
      ended.flag.store(true, ordering: .relaxed)
    }
  }

  var hasEnded: Bool { ended.flag.load(ordering: .relaxed) }
  /// Calls under way come to their end.
  func close() { client.beginGracefulShutdown() }
  /// Calls under way fail.
  func abort() { running.cancel() }
  deinit { client.beginGracefulShutdown() }
}

/// Lets only enrolled hosts in: the TLS handshake has checked that the authority signed the certificate, this checks
/// that its host is still a member.
struct MembersOnly: ServerInterceptor {
  let cluster: Cluster

  /// What a host's daemon does for one who asks another's.
  private static let forwarded: Set<MethodDescriptor> = [
    Snowfork_V1_Snowfork.Method.StartVM.descriptor, Snowfork_V1_Snowfork.Method.StopVM.descriptor,
    Snowfork_V1_Snowfork.Method.ListVMs.descriptor, Snowfork_V1_Snowfork.Method.Exec.descriptor,
    Snowfork_V1_Snowfork.Method.Kill.descriptor, Snowfork_V1_Snowfork.Method.Stats.descriptor,
    Snowfork_V1_Snowfork.Method.TicketHistory.descriptor,
    Snowfork_V1_Replicas.Method.ListReplicas.descriptor,
    Snowfork_V1_Replicas.Method.ActivateReplica.descriptor,
    Snowfork_V1_Replicas.Method.RemoveReplica.descriptor,
  ]

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
    let call = context.descriptor
    let forPeers = [Snowfork_V1_Peer.descriptor, Snowfork_V1_ReplicaPeer.descriptor]
    guard forPeers.contains(call.service) || Self.forwarded.contains(call) else {
      throw RPCError(
        code: .permissionDenied, message: "\(call.method) is not for other hosts. Call it on this one.")
    }
    return try await next(request, context)
  }
}

extension CallOptions {
  /// No call waits for ever: a host may be cut off, or be ending, with the connection still standing.
  static func within(_ limit: Duration) -> CallOptions {
    var options = CallOptions.defaults
    options.timeout = limit
    return options
  }
}
