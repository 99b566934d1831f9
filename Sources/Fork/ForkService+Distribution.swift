import Foundation
import GRPCCore
import Memtap
import Wire

/// Snapshots on their way to other hosts: the descriptor by gRPC, once to each; pages follow by Mcdist.
extension ForkService {
  /// How a snapshot's pages get to other hosts.
  struct Distribution: Sendable {
    var transport = PageTransport.auto
    var push = false
  }

  /// The snapshot is on that host when this returns. Whoever comes second waits for the first.
  func deliver(
    _ snapshot: SnapshotRecord, to host: String, distribution: Distribution,
    described: @escaping @Sendable () async throws -> Void
  ) async throws {
    if let under = deliveries[snapshot.id]?[host] {
      try await under.value
      return
    }
    let task = Task {
      try await self.send(snapshot, to: host, distribution: distribution, described: described)
    }
    deliveries[snapshot.id, default: [:]][host] = task
    do { try await task.value } catch {
      deliveries[snapshot.id]?[host] = nil
      throw error
    }
  }

  private func send(
    _ snapshot: SnapshotRecord, to host: String, distribution: Distribution,
    described: @Sendable () async throws -> Void
  ) async throws {
    guard let own = await cluster.own else { throw ForkError(.failed, "this host is in no cluster") }
    async let serving = memtap.run {
      try $0.serve(snapshot: snapshot.id, address: own.address, transport: distribution.transport)
    }
    async let layers: Void = serveLayers(of: snapshot)
    try await described()
    try await layers
    let origin = try await serving
    await settleCheckpoint(of: snapshot.parent, on: host)
    let warm = await warmth(of: snapshot, on: host)
    let path = configuration.descriptorPath(snapshot.id)
    guard let descriptor = FileManager.default.contents(atPath: path) else {
      throw ForkError(.failed, "the descriptor \(path) is missing")
    }
    var header = Snowfork_V1_DeliverSnapshotRequest.Header.with {
      $0.home = own.name
      $0.snapshot = snapshot.id
      $0.parent = snapshot.parent
      $0.image = snapshot.image
      $0.memoryBytes = UInt64(snapshot.memoryBytes)
      $0.vcpus = UInt32(snapshot.vcpus)
      $0.kernelCommandLine = snapshot.commandLine
      $0.descriptorBytes = UInt64(descriptor.count)
      $0.origin = origin.wire
      // Of a warm one only what was written since is on its way: a few pages, which are wanted soon.
      $0.push = distribution.push || configuration.pushesAlways || warm != nil
      $0.checkpointRequest = UInt32(snapshot.checkpointRequest)
      $0.kept = snapshot.kept
      if let warm { $0.warm = warm }
    }
    if let warm, let change = await change(descriptor, on: warm, ofParent: snapshot.parent) {
      header.warm.descriptorIsChange = true
      do { return try await put(header, change, on: host) } catch let error as RPCError
        where error.code == .failedPrecondition
      {
        log.notice("host \(host) is sent the whole descriptor of \(snapshot.id): \(error.message)")
        header.warm.descriptorIsChange = false
      }
    }
    try await put(header, descriptor, on: host)
  }

  private func put(
    _ header: Snowfork_V1_DeliverSnapshotRequest.Header, _ descriptor: Data, on host: String
  ) async throws {
    // A slow network takes a megabyte a second.
    let patience = Duration.seconds(5 + descriptor.count >> 20)
    _ = try await cluster.insist(on: host, timeout: patience) { connection, options in
      try await connection.peer.deliverSnapshot(options: options) { writer in
        try await writer.write(.with { $0.header = header })
        for first in stride(from: 0, to: descriptor.count, by: 1 << 18) {
          let chunk = descriptor[first..<min(first + 1 << 18, descriptor.count)]
          try await writer.write(.with { $0.descriptorChunk = Data(chunk) })
        }
      }
    }
  }

  /// The hosts that have the snapshot need not keep it any longer.
  func withdraw(_ id: String) async {
    guard let hosts = deliveries.removeValue(forKey: id)?.keys else { return }
    await withTaskGroup(of: Void.self) { group in
      for host in hosts { group.addTask { await self.drop(id, on: host) } }
    }
  }

  func drop(_ id: String, on host: String) async {
    guard let connection = try? await cluster.reach(host) else { return }  // hello finds what is left there
    let home = await cluster.host
    _ = try? await connection.peer.dropSnapshot(
      .with {
        $0.home = home
        $0.snapshot = id
      }, options: .within(.seconds(10)))
  }
}

extension Memtap.PageOrigin {
  var wire: Snowfork_V1_PageOrigin {
    .with {
      $0.address = address
      $0.port = UInt32(port)
      $0.group = group
      $0.groupPort = UInt32(groupPort)
      $0.key = Data(key)
      $0.transport = transport.rawValue
    }
  }

  init(_ wire: Snowfork_V1_PageOrigin) {
    self.init(
      address: wire.address, port: UInt16(truncatingIfNeeded: wire.port), group: wire.group,
      groupPort: UInt16(truncatingIfNeeded: wire.groupPort), key: Array(wire.key),
      transport: PageTransport(rawValue: wire.transport) ?? .auto)
  }
}
