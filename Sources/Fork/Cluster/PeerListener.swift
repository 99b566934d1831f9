import GRPCCore
import GRPCNIOTransportHTTP2
import Logging
import Wire

/// The door for other hosts: TCP with mutual TLS, only members of the cluster come in.
actor PeerListener {
  private let service: ForkService
  private let version: String
  private var server: GRPCServer<HTTP2ServerTransport.Posix>?

  init(service: ForkService, version: String) {
    self.service = service
    self.version = version
  }

  /// Listens from now on, if this host is in a cluster; not an error if it does already. Throws if the address can not
  /// be listened on.
  func open() async throws {
    guard server == nil, let own = await service.cluster.own, let identity = await service.cluster.identity
    else { return }
    let transport = HTTP2ServerTransport.Posix(
      address: .ipv4(host: own.address, port: own.port),
      transportSecurity: .mTLS(
        certificateChain: [.bytes(Array(identity.certificatePEM.utf8), format: .pem)],
        privateKey: .bytes(Array(identity.keyPEM.utf8), format: .pem)
      ) { tls in
        tls.trustRoots = .certificates([.bytes(Array(identity.authorityPEM.utf8), format: .pem)])
        tls.requireALPN = true
      })
    let server = GRPCServer(
      transport: transport,
      services: [
        PeerAPI(service: service, version: version),
        SnowforkAPI(service: service, listener: self, version: version) { _ in },
        ReplicasAPI(service: service), ReplicaPeerAPI(service: service),
      ],
      interceptors: [MembersOnly(cluster: service.cluster)])
    let serving = Task { try await server.serve() }
    do {
      _ = try await server.listeningAddress
    } catch {
      serving.cancel()
      throw ForkError(
        .failed, "cannot listen on \(own.address):\(own.port): \(error). Is it this host's address, and free?"
      )
    }
    self.server = server
  }

  /// The host whose certificate a call came with.
  static func caller(_ context: ServerContext) -> String? {
    let transport = context.transportSpecific as? HTTP2ServerTransport.Posix.Context
    return transport?.peerCertificate.flatMap { Authority.host(of: $0) }
  }

  func close() {
    server?.beginGracefulShutdown()
    server = nil
  }
}
