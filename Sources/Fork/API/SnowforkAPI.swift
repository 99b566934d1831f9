import Foundation
import GRPCCore
import Hypervisor
import Memtap
import Wire

extension ForkService.NetworkRequest {
  init(_ wire: Snowfork_V1_NetworkRequest) {
    self.init(
      isWanted: !wire.none, subnet: wire.subnet, allowed: wire.allowed, bytesPerSecond: wire.bytesPerSecond,
      forwards: wire.forwards)
  }
}

/// The daemon's gRPC service: requests to the ForkService and its answers back. No logic of its own.
struct SnowforkAPI: Snowfork_V1_Snowfork.SimpleServiceProtocol {
  let service: ForkService
  /// Where other hosts call.
  let listener: PeerListener
  let version: String
  /// Asks the process to end; true: end the VMs as well.
  let shutdown: @Sendable (Bool) async -> Void

  func startVM(
    request: Snowfork_V1_StartVMRequest, response: RPCWriter<Snowfork_V1_StartVMReply>, context: ServerContext
  ) async throws {
    try await translatingErrors("cannot start \(request.name)") {
      if await !isHere(request.host) {
        try await forwardStart(request, response)
        return
      }
      let record = try await service.startVM(
        .init(
          name: request.name, imageDirectory: request.imageDirectory, memoryBytes: request.memoryBytes,
          vcpus: Int(request.vcpus), cpuLimitPercent: Int(request.cpuLimitPercent),
          disks: request.disks.map {
            $0.path.isEmpty ? .empty(virtualBytes: $0.virtualBytes) : .copy(of: $0.path)
          }, network: .init(request.network), traits: .init(request.traits))
      ) { progress in
        try? await response.write(.with { $0.progress = progress.wire })
      }
      let vm = try await service.vms(includingEnded: false).first { $0.record.name == record.name }
      do {
        if context.cancellation.isCancelled { throw CancellationError() }
        let host = await service.cluster.host
        try await response.write(.with { $0.vm = (vm?.wire(host: host)) ?? .init() })
      } catch {
        try? await service.stopVM(record.name, destroy: true, timeoutSeconds: 0)
        throw error
      }
    }
  }

  func stopVM(request: Snowfork_V1_StopVMRequest, context: ServerContext) async throws
    -> Snowfork_V1_StopVMReply
  {
    try await translatingErrors("cannot stop \(request.name)") {
      if let host = await service.hostElsewhere(of: request.name) {
        return try await service.cluster.reach(host).snowfork.stopVM(request)
      }
      try await service.stopVM(
        request.name, destroy: request.destroy, timeoutSeconds: Int(request.timeoutSeconds))
      return .init()
    }
  }

  func fork(
    request: Snowfork_V1_ForkRequest, response: RPCWriter<Snowfork_V1_ForkReply>, context: ServerContext
  ) async throws {
    try await translatingErrors("cannot fork \(request.name)") {
      if await service.isStandbyOnly(request.name) {
        try await deliver(
          try await service.cloneStandby(
            of: request.name, count: Int(request.count), hosts: request.hosts,
            distribution: try Self.distribution(request.transport, request.push)
          ) { try? await response.write(.progress($0)) }, response, context)
        return
      }
      try await service.requireHere(request.name, to: "fork \(request.name)")
      let distribution = try Self.distribution(request.transport, request.push)
      let report: ForkService.Report = { progress in
        try? await response.write(.with { $0.progress = progress.wire })
      }
      let ticket = try await service.requestTicket(
        of: service.source(vm: request.name), count: Int(request.count), hierarchical: request.hierarchical,
        owner: .operatorCommand, hosts: request.hosts, report: report)
      do {
        // Whoever interrupts sfctl before the fork wants none.
        if context.cancellation.isCancelled { throw CancellationError() }
        let outcome = try await service.fork(
          ticket: ticket.id, cloneRequest: 0, dropsCache: request.dropCache, distribution: distribution,
          report: report)
        try await deliver(outcome, response, context)
      } catch {
        await service.removeUnusedTicket(ticket.id)
        throw error
      }
    }
  }

  func createSnapshot(
    request: Snowfork_V1_CreateSnapshotRequest, context: ServerContext
  ) async throws -> Snowfork_V1_SnapshotInfo {
    try await translatingErrors("cannot make snapshot \(request.snapshot)") {
      try await service.requireHere(request.name, to: "make a snapshot of \(request.name)")
      return try await service.createOperatorSnapshot(
        of: request.name, id: request.snapshot, dropsCache: request.dropCache
      ).wire
    }
  }

  func listSnapshots(
    request: Snowfork_V1_ListSnapshotsRequest, context: ServerContext
  ) async throws -> Snowfork_V1_ListSnapshotsReply {
    try await translatingErrors("cannot list snapshots") {
      let infos = try await service.snapshotViews().map(\.wire)
      return .with { $0.snapshots = infos }
    }
  }

  func removeSnapshot(
    request: Snowfork_V1_RemoveSnapshotRequest, context: ServerContext
  ) async throws -> Snowfork_V1_RemoveSnapshotReply {
    try await translatingErrors("cannot remove snapshot \(request.snapshot)") {
      try await service.removeSnapshot(request.snapshot)
      return .init()
    }
  }

  func cloneSnapshot(
    request: Snowfork_V1_CloneSnapshotRequest, response: RPCWriter<Snowfork_V1_ForkReply>,
    context: ServerContext
  ) async throws {
    try await translatingErrors("cannot clone \(request.snapshot)") {
      let distribution = try Self.distribution(request.transport, request.push)
      let report: ForkService.Report = { try? await response.write(.progress($0)) }
      let outcome =
        await service.isStandbyOnly(request.snapshot)
        ? try await service.cloneStandby(
          of: request.snapshot, count: Int(request.count), hosts: request.hosts, distribution: distribution,
          report: report)
        : try await service.clone(
          snapshot: request.snapshot, count: Int(request.count), hosts: request.hosts,
          distribution: distribution, report: report)
      try await deliver(outcome, response, context)
    }
  }

  /// Clones whose ticket nobody has learnt of, for sfctl was interrupted, are ended.
  private func deliver(
    _ outcome: ForkService.Outcome, _ response: RPCWriter<Snowfork_V1_ForkReply>, _ context: ServerContext
  ) async throws {
    do {
      if context.cancellation.isCancelled { throw CancellationError() }
      let host = await service.cluster.host
      try await response.write(.with { $0.result = outcome.wire(host: host) })
    } catch {
      service.log.notice("the fork of \(outcome.ticket.id) was interrupted; its clones are ended")
      _ = try? await service.kill(ticket: outcome.ticket.id, reason: "sfctl was interrupted")
      await service.removeTicket(outcome.ticket.id)
      throw error
    }
  }

  func listVMs(request: Snowfork_V1_ListVMsRequest, context: ServerContext) async throws
    -> Snowfork_V1_ListVMsReply
  {
    try await translatingErrors("cannot list VMs") {
      let vms = try await service.vms(includingEnded: request.all)
      let host = await service.cluster.host
      let others = request.localOnly ? [] : await service.vmsElsewhere(all: request.all)
      return .with { $0.vms = vms.map { $0.wire(host: host) } + others }
    }
  }

  func exec(
    request: RPCAsyncSequence<Snowfork_V1_ExecInput, any Error>, response: RPCWriter<Snowfork_V1_ExecOutput>,
    context: ServerContext
  ) async throws {
    try await translatingErrors("cannot run a command") {
      try await ExecRelay(service: service).run(input: request, output: response)
    }
  }

  func join(
    request: Snowfork_V1_JoinRequest, response: RPCWriter<Snowfork_V1_JoinReply>, context: ServerContext
  ) async throws {
    try await translatingErrors("cannot join \(request.ticket)") {
      let deadline =
        request.timeoutSeconds > 0 ? ContinuousClock.now + .seconds(request.timeoutSeconds) : nil
      let exits = try await service.join(ticket: request.ticket, deadline: deadline) { progress in
        try? await response.write(.with { $0.progress = progress.wire })
      }
      guard let exits else {
        throw ForkError(
          .failed,
          "cannot join \(request.ticket): clones still run after \(request.timeoutSeconds) s. Wait longer, or end them with sfctl kill \(request.ticket)."
        )
      }
      try await response.write(
        .with {
          $0.finished = true
          $0.statuses = exits.map(\.wireStatus)
        })
    }
  }

  func kill(request: Snowfork_V1_KillRequest, context: ServerContext) async throws -> Snowfork_V1_KillReply {
    try await translatingErrors("cannot kill \(request.target)") {
      if let host = await service.hostElsewhere(of: request.target) {
        return try await service.cluster.reach(host).snowfork.kill(request)
      }
      let ended = try await service.kill(target: request.target)
      return .with { $0.ended = UInt32(ended) }
    }
  }

  func stats(request: Snowfork_V1_StatsRequest, context: ServerContext) async throws -> Snowfork_V1_StatsReply
  {
    try await translatingErrors("cannot read statistics") {
      let stats =
        request.localOnly
        ? try await service.statisticsHere(of: request.target)
        : try await service.statisticsEverywhere(of: request.target)
      return .with { $0.stats = stats }
    }
  }

  func listHosts(
    request: Snowfork_V1_ListHostsRequest, context: ServerContext
  ) async throws -> Snowfork_V1_ListHostsReply {
    let hosts = await service.hostInfos(version: version)
    return .with { $0.hosts = hosts }
  }

  func listTickets(
    request: Snowfork_V1_ListTicketsRequest, context: ServerContext
  ) async throws -> Snowfork_V1_ListTicketsReply {
    let tickets = await service.ticketViews()
    return .with { $0.tickets = tickets }
  }

  func describeTicket(
    request: Snowfork_V1_DescribeTicketRequest, context: ServerContext
  ) async throws -> Snowfork_V1_ForkResult {
    try await translatingErrors("cannot describe \(request.ticket)") {
      try await service.describe(ticket: request.ticket).wire(host: service.cluster.host)
    }
  }

  func info(request: Snowfork_V1_InfoRequest, context: ServerContext) async throws -> Snowfork_V1_InfoReply {
    let pager = try? await service.memtap.run { try $0.status() }
    let host = await service.cluster.host
    return .with {
      $0.version = version
      $0.accelerator = service.hypervisor.accelerator.accelerator.rawValue
      $0.acceleratorReason = service.hypervisor.accelerator.reason
      $0.pid = getpid()
      $0.memtapPid = pager?.pid ?? 0
      $0.hypervisorUri = service.hypervisor.uri
      $0.host = host
    }
  }

  func shutdown(
    request: Snowfork_V1_ShutdownRequest, context: ServerContext
  ) async throws -> Snowfork_V1_ShutdownReply {
    if request.destroyVms { await service.endAll() }
    let shutdown = shutdown
    Task { await shutdown(request.destroyVms) }
    return .init()
  }

  /// Every failure leaves as a status whose message is the sentence for the user.
  func translatingErrors<T>(_ what: String, _ body: () async throws -> T) async throws -> T {
    do {
      return try await body()
    } catch let error as RPCError {
      // Another host's: the headers that came with it would break this answer.
      throw RPCError(code: error.code, message: error.message)
    } catch let error as GuestError {
      throw RPCError(code: .unknown, message: "\(what): \(error).")
    } catch {
      let error = ForkError.wrap(what, error)
      throw RPCError(code: error.status, message: error.message)
    }
  }
}

extension ForkError {
  var status: RPCError.Code {
    switch code {
    case .invalid: .invalidArgument
    case .notFound: .notFound
    case .refused: .failedPrecondition
    case .exists: .alreadyExists
    case .failed: .unknown
    }
  }
}
