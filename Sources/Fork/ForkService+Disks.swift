import CloneDisk
import Descriptor
import Foundation
import Hypervisor

/// Disks of VMs: what belongs to each step of their lives. Layers and who serves them are `CloneDisk`'s.
extension ForkService {
  /// What `vm start --disk` asks for.
  enum DiskRequest: Sendable {
    case empty(virtualBytes: UInt64)
    case copy(of: String)
    /// The root file system of an image, which may be made anew while the VM lives.
    case root(of: String)
  }

  static let diskLimit = 16
  /// A fork adds a layer, which every read that finds nothing above it passes.
  static let layerLimit = 250

  // MARK: start

  func makeDisks(_ requests: [DiskRequest], what: String) async throws -> [VMDisk] {
    guard requests.count <= Self.diskLimit else {
      throw ForkError(
        .invalid, "\(what): \(requests.count) disks. A VM can have up to \(Self.diskLimit).")
    }
    let (store, host) = (disks.store, await cluster.host)
    return try await workers.run {
      do {
        return try requests.map { request in
          switch request {
          case .empty(let bytes):
            return VMDisk(
              virtualBytes: bytes, active: try store.create(virtualBytes: bytes), export: nil, base: [])
          case .copy(let path), .root(let path):
            let isRoot = if case .root = request { true } else { false }
            let (layer, bytes) = try store.adopt(path, host: host, isKept: isRoot)
            return VMDisk(
              virtualBytes: bytes, active: try store.create(virtualBytes: bytes), export: DiskLayer.newID(),
              base: [layer])
          }
        }
      } catch let error as DiskError where error.isNoRoom {
        throw Self.noRoom(what, store, host)
      } catch {
        throw ForkError(.failed, "\(what): its disk can not be made: \(error). Check --disk.")
      }
    }
  }

  /// A slot's disks read as zeros until it becomes a clone; it does not run before.
  func makeSlotDisks(_ sizes: [UInt64], of name: String) async throws -> [VMDisk]? {
    if sizes.isEmpty { return nil }
    let files = try await emptyFiles(sizes, for: "cannot make clone \(name)")
    return zip(sizes, files).map {
      VMDisk(virtualBytes: $0, active: $1, export: DiskLayer.newID(), base: [])
    }
  }

  /// Files of these sizes for a VM to write.
  func emptyFiles(_ sizes: [UInt64], for what: String) async throws -> [String] {
    let (store, host) = (disks.store, await cluster.host)
    return try await workers.run {
      do {
        return try sizes.map { try store.create(virtualBytes: $0) }
      } catch let error as DiskError where error.isNoRoom {
        throw Self.noRoom(what, store, host)
      }
    }
  }

  /// Exports for the VM's QEMU to connect to when it starts.
  func exportDisks(of record: VMRecord) async throws {
    let exports = (record.disks ?? []).compactMap(\.exported)
    guard !exports.isEmpty else { return }
    try await locateLayers(of: exports)
    let daemon = disks.daemon
    try await workers.run { for export in exports { try daemon.add(export) } }
  }

  func machineDisks(of record: VMRecord) -> [MachineDisk] {
    (record.disks ?? []).map { disk in
      MachineDisk(
        path: disks.store.layerPath(disk.active), format: .qcow2,
        backing: disk.export.map {
          .init(
            export: $0, socketPath: disks.daemon.exportsSocket,
            reconnectSeconds: StorageDaemon.reconnectSeconds)
        })
    }
  }

  // MARK: freeze

  /// Files for the VM to write to from its next freeze on. They are recorded before they are used.
  func prepareTurns(of name: String) async throws -> [DiskTurn] {
    guard let known = guests[name]?.record.disks else { return [] }
    for disk in known where disk.frozen.count + disk.base.count >= Self.layerLimit {
      throw ForkError(
        .refused,
        "cannot fork \(name): its disk has \(disk.frozen.count + disk.base.count) layers. Start it anew from a copy."
      )
    }
    var files = known.map(\.next)
    for index in files.indices where files[index] == nil {
      files[index] = try await emptyFiles([known[index].virtualBytes], for: "cannot fork \(name)").first
    }
    for (index, file) in files.enumerated() { guests[name]?.record.disks?[index].next = file }
    await save(name)
    return files.compactMap(\.self).enumerated().map { index, file in
      DiskTurn(index: index, path: disks.store.layerPath(file), node: "d" + file)
    }
  }

  /// The VM has gone over to its new files. Answers its disks at the fork point.
  func diskPoints(of name: String) async -> [DiskPoint]? {
    guard let known = guests[name]?.record.disks else { return nil }
    let host = await cluster.host
    for index in known.indices { guests[name]?.record.disks?[index].advance(host: host) }
    await save(name)
    return known.map { $0.point(host: host) }
  }

  /// After a daemon's death in mid-fork: which file QEMU writes to.
  func reconcileDisks(of name: String) async throws {
    guard let known = guests[name]?.record.disks else { return }
    let files = try await withHypervisor { try $0.diskFiles(name) }
    let host = await cluster.host
    for (index, disk) in known.enumerated() where files.indices.contains(index) {
      if let next = disk.next, files[index].first == disks.store.layerPath(next) {
        guests[name]?.record.disks?[index].advance(host: host)
      }
      // One that was merged into the next when the daemon died.
      let inUse = Set(files[index])
      guests[name]?.record.disks?[index].frozen.removeAll { !inUse.contains(disks.store.layerPath($0.id)) }
    }
    await save(name)
  }

  // MARK: activate

  /// The slot's disks are from now on what the snapshot's were.
  func bindDisks(of name: String, to snapshot: SnapshotRecord) async throws {
    let (points, known) = (snapshot.disks ?? [], guests[name]?.record.disks ?? [])
    guard known.map(\.virtualBytes) == points.map(\.virtualBytes) else {
      throw ForkError(.failed, "its disks are not as large as those of \(snapshot.parent)")
    }
    for (index, point) in points.enumerated() { guests[name]?.record.disks?[index].base = point.layers }
    let daemon = disks.daemon
    let exports = (guests[name]?.record.disks ?? []).compactMap(\.exported)
    guard !exports.isEmpty else { return }
    try await locateLayers(of: exports)
    try await workers.run { for export in exports { try daemon.bind(export.name, to: export.layers) } }
  }

  /// Opens the snapshot's layers before clones need them.
  func openLayers(of snapshot: SnapshotRecord) async throws {
    guard let points = snapshot.disks else { return }
    try await locateLayers(of: points.map { .init(name: "", virtualBytes: 0, layers: $0.layers) })
    let daemon = disks.daemon
    try await workers.run { for point in points { try daemon.open(point.layers) } }
  }

  /// `--push`: all of the snapshot's layers come here in the background.
  func fetchLayers(of snapshot: SnapshotRecord) async throws {
    let layers = (snapshot.disks ?? []).flatMap(\.layers)
    guard !layers.isEmpty else { return }
    let daemon = disks.daemon
    try await workers.run { try daemon.fetchAll(layers, bytesPerSecond: Self.pushBytesPerSecond) }
  }

  /// Low: what guests read goes first.
  private static let pushBytesPerSecond: Int64 = 32 << 20

  /// Lets other hosts read those of the snapshot's layers that are here.
  func serveLayers(of snapshot: SnapshotRecord) async throws {
    guard let points = snapshot.disks, let own = await cluster.own else { return }
    let layers = points.flatMap(\.layers).filter { $0.host == own.name }.map(\.id)
    let (server, port) = (disks.server, configuration.diskPort)
    try prepareCertificates()
    try await workers.run { try server.serve(layers, address: own.address, port: port) }
  }

  /// The storage daemon learns where the layers of other hosts are. Throws if one of them is in the cluster no more; it has
  /// learnt of the others then.
  func locateLayers(of exports: [StorageDaemon.Export]) async throws {
    let here = await cluster.host
    let hosts = Set(exports.flatMap(\.layers).map(\.host)).subtracting([here])
    if hosts.isEmpty { return }
    try prepareCertificates()
    var missing: String?
    for host in hosts {
      guard let member = await cluster.members[host], !member.isRemoved else {
        missing = host
        continue
      }
      disks.daemon.setSource(
        .init(
          address: member.address, port: configuration.diskPort, tlsName: Authority.dnsName(ofHost: host)),
        of: host)
    }
    if let missing {
      throw ForkError(.failed, "host \(missing), which has a layer of the disk, is not in the cluster")
    }
  }

  /// The names by which nbdkit and QEMU look for them.
  private func prepareCertificates() throws {
    let directory = configuration.diskCertificates
    try FileManager.default.createDirectory(
      atPath: directory, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
    for (name, file) in [
      ("ca-cert", "authority.pem"), ("server-cert", "host.pem"), ("server-key", "host.key"),
      ("client-cert", "host.pem"), ("client-key", "host.key"),
    ] {
      symlink("../\(file)", "\(directory)/\(name).pem")
    }
  }

  /// What a descriptor says of disks; it names files, so not everything is taken.
  func diskPoints(_ descriptor: VMDescriptor) throws -> [DiskPoint]? {
    if descriptor.disks.isEmpty { return nil }
    return try descriptor.disks.map { disk in
      guard let point = DiskPoint(disk) else {
        throw ForkError(.failed, "its descriptor names no disk layers of ours")
      }
      return point
    }
  }

  // MARK: end

  /// The VM's QEMU has gone.
  func releaseDisks(of record: VMRecord) async {
    guard let known = record.disks, !known.isEmpty else { return }
    mergeFailures[record.name] = nil
    let disks = disks
    _ = try? await workers.run {
      for disk in known {
        if let export = disk.export { disks.daemon.remove(export) }
        for file in [disk.active, disk.next].compactMap(\.self) { disks.store.remove(file) }
      }
    }
  }
}

extension VMDisk {
  var exported: StorageDaemon.Export? {
    export.map { .init(name: $0, virtualBytes: virtualBytes, layers: base) }
  }
}

extension DiskPoint {
  var described: VMDescriptor.Disk {
    .init(
      virtualBytes: virtualBytes,
      layers: layers.map { .init(id: $0.id, format: $0.format.rawValue, host: $0.host) })
  }

  /// Nil: no id or format of ours. An id becomes a file's name.
  init?(_ disk: VMDescriptor.Disk) {
    var layers: [DiskLayer] = []
    for layer in disk.layers {
      guard let format = DiskLayer.Format(rawValue: layer.format), DiskLayer.isID(layer.id) else {
        return nil
      }
      layers.append(DiskLayer(id: layer.id, format: format, host: layer.host))
    }
    self.init(virtualBytes: disk.virtualBytes, layers: layers)
  }
}
