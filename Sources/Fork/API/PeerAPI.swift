import Foundation
import GRPCCore
import Hypervisor
import Wire

/// sfd to sfd. Only enrolled hosts get here (`MembersOnly`).
struct PeerAPI: Snowfork_V1_Peer.SimpleServiceProtocol {
  let service: ForkService
  let version: String

  func hello(request: Snowfork_V1_HelloRequest, context: ServerContext) async throws -> Snowfork_V1_HelloReply
  {
    try check(request.host, context)
    await service.cluster.heard(from: request.host)
    for member in request.members { await service.cluster.merge(ClusterMember(member)) }
    return await service.helloReply(to: request.host, version: version)
  }

  func startSlots(
    request: Snowfork_V1_StartSlotsRequest, context: ServerContext
  ) async throws -> Snowfork_V1_StartSlotsReply {
    try check(request.home, context)
    return try await asStatus { try await service.startSlots(request) }
  }

  func deliverSnapshot(
    request: RPCAsyncSequence<Snowfork_V1_DeliverSnapshotRequest, any Error>, context: ServerContext
  ) async throws -> Snowfork_V1_DeliverSnapshotReply {
    try await asStatus {
      var header: Snowfork_V1_DeliverSnapshotRequest.Header?
      var descriptor = Data()
      for try await message in request {
        switch message.kind {
        case .header(let first):
          try check(first.home, context)
          header = first
        case .descriptorChunk(let bytes):
          descriptor.append(bytes)
          guard descriptor.count <= 1 << 30 else {
            throw ForkError(.invalid, "a descriptor of more than 1 GiB is none.")
          }
        case nil: break
        }
      }
      guard let header else { throw ForkError(.invalid, "a snapshot came without its header.") }
      try await service.receive(header, descriptor)
      return .init()
    }
  }

  func activate(
    request: Snowfork_V1_ActivateRequest, response: RPCWriter<Snowfork_V1_ActivateReply>,
    context: ServerContext
  ) async throws {
    try check(request.home, context)
    try await asStatus {
      try await service.activate(request) { reply in try? await response.write(reply) }
    }
  }

  func endClones(
    request: Snowfork_V1_EndClonesRequest, context: ServerContext
  ) async throws -> Snowfork_V1_EndClonesReply {
    try check(request.home, context)
    let ended = await service.endForeign(
      request.names, of: request.ticket, home: request.home, reason: request.reason)
    return .with { $0.ended = UInt32(ended) }
  }

  func reportEnds(
    request: Snowfork_V1_ReportEndsRequest, context: ServerContext
  ) async throws -> Snowfork_V1_ReportEndsReply {
    try check(request.host, context)
    for end in request.ends { await service.ended(end, on: request.host) }
    return .init()
  }

  func reserveNumbers(
    request: Snowfork_V1_ReserveNumbersRequest, context: ServerContext
  ) async throws -> Snowfork_V1_ReserveNumbersReply {
    try await asStatus {
      let numbers = try await service.giveNumbers(Int(request.count), family: request.family)
      return .with { $0.numbers = numbers.map { UInt32($0) } }
    }
  }

  func dropSnapshot(
    request: Snowfork_V1_DropSnapshotRequest, context: ServerContext
  ) async throws -> Snowfork_V1_DropSnapshotReply {
    try check(request.home, context)
    await service.dropForeign(request.snapshot, home: request.home, gone: request.goneReason)
    return .init()
  }

  /// A member speaks for itself only.
  private func check(_ host: String, _ context: ServerContext) throws(RPCError) {
    try Self.checkSpeaker(host, context)
  }

  static func checkSpeaker(_ host: String, _ context: ServerContext) throws(RPCError) {
    guard PeerListener.caller(context) != host else { return }
    throw RPCError(code: .permissionDenied, message: "a host can not speak for \(host).")
  }

  private func asStatus<T>(_ body: () async throws -> T) async throws -> T {
    do {
      return try await body()
    } catch {
      let error = ForkError.wrap("a call of another host", error)
      throw RPCError(code: error.status, message: error.message)
    }
  }
}

extension ForkService {
  func helloReply(to peer: String, version: String) async -> Snowfork_V1_HelloReply {
    let load = hostLoad(named: await cluster.host)
    let members = await cluster.members.values.map(\.wire)
    let info = await hostInfo(version: version)
    return .with {
      $0.host = info
      $0.members = members
      $0.instance = cluster.instance
      $0.reservedBytes = load.reservedBytes
      $0.vcpusInUse = UInt32(load.vcpusInUse)
      $0.foreignSnapshots = snapshots.values.filter { $0.home == peer && $0.kept }.map(\.id)
      $0.neededLayers = layersNeeded(of: peer).sorted()
      $0.activatedReplicas = replacing(of: peer)
      $0.foreignClones = guests.values.map(\.record).filter { $0.home == peer && !$0.state.isOver }.map {
        record in
        .with {
          $0.name = record.name
          $0.ticket = record.ticket ?? ""
        }
      }
    }
  }

  func hostInfo(version: String) async -> Snowfork_V1_HostInfo {
    let memory = HostMemory.read()
    let own = await cluster.own
    let name = await cluster.host
    let vms = guests.values.count { $0.record.state != .ended && $0.record.host == nil }
    return .with {
      $0.name = name
      $0.cpus = UInt32(ProcessInfo.processInfo.activeProcessorCount)
      $0.memoryBytes = memory.total
      $0.memoryFreeBytes = memory.available
      $0.vms = UInt32(vms)
      $0.accelerator = hypervisor.accelerator.accelerator.rawValue
      $0.version = version
      $0.address = own.map { "\($0.address):\($0.port)" } ?? ""
      $0.state = "up"
      $0.lastSeenUnix = UInt64(Date().timeIntervalSince1970)
    }
  }
}
