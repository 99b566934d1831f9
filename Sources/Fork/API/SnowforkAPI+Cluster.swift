import GRPCCore
import Wire

/// The calls that are about several hosts.
extension SnowforkAPI {
  func initCluster(
    request: Snowfork_V1_InitClusterRequest, context: ServerContext
  ) async throws -> Snowfork_V1_InitClusterReply {
    throw RPCError(code: .unimplemented, message: "not built yet")
  }

  func addHost(
    request: Snowfork_V1_AddHostRequest, context: ServerContext
  ) async throws -> Snowfork_V1_AddHostReply {
    throw RPCError(code: .unimplemented, message: "not built yet")
  }

  func joinCluster(
    request: Snowfork_V1_JoinClusterRequest, context: ServerContext
  ) async throws -> Snowfork_V1_JoinClusterReply {
    throw RPCError(code: .unimplemented, message: "not built yet")
  }

  func removeHost(
    request: Snowfork_V1_RemoveHostRequest, context: ServerContext
  ) async throws -> Snowfork_V1_RemoveHostReply {
    throw RPCError(code: .unimplemented, message: "not built yet")
  }

  func ticketHistory(
    request: Snowfork_V1_TicketHistoryRequest, context: ServerContext
  ) async throws -> Snowfork_V1_TicketHistoryReply {
    throw RPCError(code: .unimplemented, message: "not built yet")
  }
}
