import Foundation
import GRPCCore
import Memtap
import Wire

/// The calls that are about several hosts.
extension SnowforkAPI {
  func initCluster(
    request: Snowfork_V1_InitClusterRequest, context: ServerContext
  ) async throws -> Snowfork_V1_InitClusterReply {
    try await translatingErrors("cannot make a cluster") {
      let cluster = service.cluster
      if await cluster.own == nil, await service.runningCount() > 0 {
        throw ForkError(
          .refused, "cannot make a cluster: VMs run on this host under its old name. End them first.")
      }
      try Self.checkAddress(request.address, "cannot make a cluster")
      let own = try await cluster.make(
        name: request.name, address: request.address, port: Self.port(request.port))
      service.disks.daemon.setOwnHost(own.name)
      try await listener.open()
      return .with {
        $0.host = own.name
        $0.address = own.address
        $0.port = UInt32(own.port)
      }
    }
  }

  func addHost(
    request: Snowfork_V1_AddHostRequest, context: ServerContext
  ) async throws -> Snowfork_V1_AddHostReply {
    try await translatingErrors("cannot add host \(request.name)") {
      try Self.checkAddress(request.address, "cannot add host \(request.name)")
      let bundle = try await service.cluster.add(
        name: request.name, address: request.address, port: Self.port(request.port))
      let data = try JSONEncoder().encode(bundle)
      return .with { $0.bundle = data }
    }
  }

  func joinCluster(
    request: Snowfork_V1_JoinClusterRequest, context: ServerContext
  ) async throws -> Snowfork_V1_JoinClusterReply {
    try await translatingErrors("cannot join the cluster") {
      guard let bundle = try? JSONDecoder().decode(ClusterFiles.Bundle.self, from: request.bundle) else {
        throw ForkError(
          .invalid, "cannot join the cluster: the file is no host bundle. Make one with sfctl host add.")
      }
      if await service.cluster.own == nil, await service.runningCount() > 0 {
        throw ForkError(
          .refused, "cannot join the cluster: VMs run on this host under its old name. End them first.")
      }
      let own = try await service.cluster.join(bundle)
      service.disks.daemon.setOwnHost(own.name)
      try await listener.open()
      await service.cluster.greet()
      let count = await service.cluster.others.count + 1
      return .with {
        $0.host = own.name
        $0.address = own.address
        $0.port = UInt32(own.port)
        $0.hosts = UInt32(count)
      }
    }
  }

  func removeHost(
    request: Snowfork_V1_RemoveHostRequest, context: ServerContext
  ) async throws -> Snowfork_V1_RemoveHostReply {
    try await translatingErrors("cannot remove host \(request.name)") {
      try await service.cluster.remove(request.name)
      return .init()
    }
  }

  func ticketHistory(
    request: Snowfork_V1_TicketHistoryRequest, context: ServerContext
  ) async throws -> Snowfork_V1_TicketHistoryReply {
    try await translatingErrors("cannot read the history of \(request.ticket)") {
      try await service.history(ticket: request.ticket)
    }
  }

  private static func port(_ wanted: UInt32) -> Int { wanted == 0 ? Cluster.defaultPort : Int(wanted) }

  private static func checkAddress(_ text: String, _ what: String) throws(ForkError) {
    var parsed = in_addr()
    if inet_pton(AF_INET, text, &parsed) != 1 {
      throw ForkError(.invalid, "\(what): \"\(text)\" is no IPv4 address. Give one like 10.0.0.1.")
    }
  }

  static func distribution(_ transport: String, _ push: Bool) throws(ForkError) -> ForkService.Distribution {
    guard let parsed = PageTransport(rawValue: transport.isEmpty ? "auto" : transport) else {
      throw ForkError(
        .invalid, "\"\(transport)\" is no transport: auto, unicast or multicast. Choose one.")
    }
    return .init(transport: parsed, push: push)
  }

  func isHere(_ host: String) async -> Bool {
    let here = await service.cluster.host
    return host.isEmpty || host == here
  }

  /// Starts the VM on the host that was named.
  func forwardStart(
    _ request: Snowfork_V1_StartVMRequest, _ response: RPCWriter<Snowfork_V1_StartVMReply>
  ) async throws {
    let connection = try await service.cluster.reach(request.host)
    try await connection.snowfork.startVM(request) { answer in
      for try await message in answer.messages { try await response.write(message) }
    }
  }
}
