import Foundation
import GRPCCore
import GRPCNIOTransportHTTP2
import Wire

/// An sfd that answers from memory: one VM `dev`, one ticket `t1`, one snapshot `warm`.
struct FakeDaemon: Snowfork_V1_Snowfork.SimpleServiceProtocol {
  /// Ends the server of a daemon that is asked to shut down.
  private let end: @Sendable () -> Void

  /// Runs `body` with sfctl and a daemon behind its socket.
  static func serving<R: Sendable>(_ body: (SfctlProcess) async throws -> R) async throws -> R {
    let sfctl = try SfctlProcess()
    return try await serving(sfctl.socket) { try await body(sfctl) }
  }

  static func serving<R: Sendable>(_ socket: String, _ body: () async throws -> R) async throws -> R {
    let transport = HTTP2ServerTransport.Posix(
      address: .unixDomainSocket(path: socket), transportSecurity: .plaintext)
    let daemon = FakeDaemon(end: { transport.beginGracefulShutdown() })
    return try await withGRPCServer(transport: transport, services: [daemon, FakeReplicas()]) { server in
      _ = try await server.listeningAddress
      // A body that throws must not leave the server waiting.
      defer { server.beginGracefulShutdown() }
      return try await body()
    }
  }

  private func requireKnown(_ name: String, _ known: String...) throws {
    guard known.contains(name) else {
      throw RPCError(code: .notFound, message: "cannot find \(name): no VM has this name. Try “sfctl ps”.")
    }
  }

  func startVM(
    request: Snowfork_V1_StartVMRequest, response: RPCWriter<Snowfork_V1_StartVMReply>, context: ServerContext
  ) async throws {
    guard request.name != "dev" else {
      throw RPCError(code: .alreadyExists, message: "cannot start dev: it runs already. Choose another name.")
    }
    try await response.write(.with { $0.progress = .with { $0.phase = "boot" } })
    try await response.write(
      .with {
        $0.vm = Sample.vm
        $0.vm.name = request.name
        $0.vm.memoryBytes = request.memoryBytes
        $0.vm.vcpus = request.vcpus
        $0.vm.image = request.imageDirectory
      })
  }

  func stopVM(request: Snowfork_V1_StopVMRequest, context: ServerContext) async throws
    -> Snowfork_V1_StopVMReply
  {
    try requireKnown(request.name, "dev")
    return .init()
  }

  func fork(
    request: Snowfork_V1_ForkRequest, response: RPCWriter<Snowfork_V1_ForkReply>, context: ServerContext
  ) async throws {
    try requireKnown(request.name, "dev", "dying")
    guard request.count <= 8 else {
      throw RPCError(
        code: .resourceExhausted,
        message: "cannot fork dev: no memory for \(request.count) clones. Ask for 8.")
    }
    try await response.write(.with { $0.progress = .with { $0.phase = "freeze" } })
    try await response.write(
      .with {
        $0.result = Sample.fork
        $0.result.requested = request.count
        if request.name == "dying" {
          $0.result.clones[0].state = "lost"
          $0.result.clones[0].reason = "its QEMU ended"
        }
      })
  }

  func createSnapshot(
    request: Snowfork_V1_CreateSnapshotRequest, context: ServerContext
  ) async throws -> Snowfork_V1_SnapshotInfo {
    try requireKnown(request.name, "dev")
    return Sample.snapshot
  }

  func listSnapshots(
    request: Snowfork_V1_ListSnapshotsRequest, context: ServerContext
  ) async throws -> Snowfork_V1_ListSnapshotsReply {
    .with { $0.snapshots = [Sample.snapshot] }
  }

  func removeSnapshot(
    request: Snowfork_V1_RemoveSnapshotRequest, context: ServerContext
  ) async throws -> Snowfork_V1_RemoveSnapshotReply {
    try requireKnown(request.snapshot, "warm")
    return .init()
  }

  func cloneSnapshot(
    request: Snowfork_V1_CloneSnapshotRequest, response: RPCWriter<Snowfork_V1_ForkReply>,
    context: ServerContext
  ) async throws {
    try requireKnown(request.snapshot, "warm")
    try await response.write(.with { $0.result = Sample.fork })
  }

  func listVMs(
    request: Snowfork_V1_ListVMsRequest, context: ServerContext
  ) async throws -> Snowfork_V1_ListVMsReply {
    .with { $0.vms = request.all ? [Sample.vm, Sample.ended] : [Sample.vm] }
  }

  func exec(
    request: RPCAsyncSequence<Snowfork_V1_ExecInput, any Error>, response: RPCWriter<Snowfork_V1_ExecOutput>,
    context: ServerContext
  ) async throws {
    try await FakeGuest(response).serve(request)
  }

  func join(
    request: Snowfork_V1_JoinRequest, response: RPCWriter<Snowfork_V1_JoinReply>, context: ServerContext
  ) async throws {
    try requireKnown(request.ticket, "t1")
    if request.timeoutSeconds > 0, request.timeoutSeconds < 1 {
      throw RPCError(code: .deadlineExceeded, message: "waited 0.5 s for t1: 2 clones run on. Wait longer.")
    }
    try await response.write(.with { $0.progress = .with { $0.phase = "join" } })
    try await response.write(
      .with {
        $0.finished = true
        $0.statuses = Sample.statuses
      })
  }

  func kill(request: Snowfork_V1_KillRequest, context: ServerContext) async throws -> Snowfork_V1_KillReply {
    try requireKnown(request.target, "t1")
    return .with { $0.ended = 2 }
  }

  func stats(request: Snowfork_V1_StatsRequest, context: ServerContext) async throws -> Snowfork_V1_StatsReply
  {
    .with { $0.stats = request.target == "unknown" ? [] : [Sample.stats] }
  }

  func listHosts(
    request: Snowfork_V1_ListHostsRequest, context: ServerContext
  ) async throws -> Snowfork_V1_ListHostsReply {
    .with { $0.hosts = [Sample.host] }
  }

  func listTickets(
    request: Snowfork_V1_ListTicketsRequest, context: ServerContext
  ) async throws -> Snowfork_V1_ListTicketsReply {
    .with { $0.tickets = [Sample.ticket] }
  }

  func describeTicket(
    request: Snowfork_V1_DescribeTicketRequest, context: ServerContext
  ) async throws -> Snowfork_V1_ForkResult { Sample.fork }

  func initCluster(
    request: Snowfork_V1_InitClusterRequest, context: ServerContext
  ) async throws -> Snowfork_V1_InitClusterReply { .init() }

  func addHost(
    request: Snowfork_V1_AddHostRequest, context: ServerContext
  ) async throws -> Snowfork_V1_AddHostReply { .init() }

  func joinCluster(
    request: Snowfork_V1_JoinClusterRequest, context: ServerContext
  ) async throws -> Snowfork_V1_JoinClusterReply { .init() }

  func removeHost(
    request: Snowfork_V1_RemoveHostRequest, context: ServerContext
  ) async throws -> Snowfork_V1_RemoveHostReply { .init() }

  func ticketHistory(
    request: Snowfork_V1_TicketHistoryRequest, context: ServerContext
  ) async throws -> Snowfork_V1_TicketHistoryReply {
    guard request.ticket != "joined" else {
      throw RPCError(
        code: .failedPrecondition, message: "cannot read the history of joined: its snapshot is gone.")
    }
    return Sample.history
  }

  func info(request: Snowfork_V1_InfoRequest, context: ServerContext) async throws -> Snowfork_V1_InfoReply {
    Sample.info
  }

  func shutdown(
    request: Snowfork_V1_ShutdownRequest, context: ServerContext
  ) async throws -> Snowfork_V1_ShutdownReply {
    end()
    return .init()
  }
}
