import Foundation
import LinuxSystem

/// The graph of nodes in the storage daemon (QEMU, docs/interop/live-block-operations; qapi/block-core.json).
extension StorageDaemon {
  static func node(_ layer: DiskLayer) -> String { "l" + layer.id }

  func nodeNames(_ monitor: Monitor) throws -> Set<String> {
    Set(try monitor.run("query-named-block-nodes").elements.compactMap { $0["node-name"]?.string })
  }

  /// Each by itself: what one lacks is not the others' affair. Answers why the first of those that are left could not be
  /// made; it is tried again.
  func makeUnmade(_ state: inout State, _ monitor: Monitor) throws -> DiskError? {
    var failure: DiskError?
    for name in state.unmade {
      guard let export = state.exports[name] else {
        state.unmade.remove(name)
        continue
      }
      do {
        try make(export, &state, monitor)
        state.unmade.remove(name)
      } catch let error as Monitor.Refused {
        failure = failure ?? error.asDiskError
      } catch let error as DiskError {
        failure = failure ?? error
      }
    }
    return failure
  }

  /// The export and the node under it, each if it is not there.
  func make(_ export: Export, _ state: inout State, _ monitor: Monitor) throws {
    try open(export.layers, &state, monitor)
    let nodes = try nodeNames(monitor)
    let node = "e" + export.name
    if nodes.contains(node) {
      if !export.layers.isEmpty { try point(export, monitor) }
    } else {
      let file: String
      if let top = export.layers.first {
        file = Self.node(top)
      } else {
        file = "z" + export.name
        try monitor.run(
          "blockdev-add",
          [
            "driver": "null-co", "node-name": .string(file), "size": .int(Int64(export.virtualBytes)),
            "read-zeroes": true, "read-only": true,
          ])
      }
      try monitor.run(
        "blockdev-add",
        ["driver": "raw", "node-name": .string(node), "read-only": true, "file": .string(file)])
    }
    let exports = try monitor.run("query-block-exports").elements.compactMap { $0["id"]?.string }
    if !exports.contains("x" + export.name) {
      try monitor.run(
        "block-export-add",
        [
          "type": "nbd", "id": .string("x" + export.name), "node-name": .string(node),
          "name": .string(export.name), "writable": false,
        ])
    }
  }

  /// Puts the export's layers under it. No copy, no new connection: what the VM reads next comes from there.
  func point(_ export: Export, _ monitor: Monitor) throws {
    guard let top = export.layers.first else { return }
    try monitor.run(
      "blockdev-reopen",
      [
        "options": [
          [
            "driver": "raw", "node-name": .string("e" + export.name), "read-only": true,
            "file": .string(Self.node(top)),
          ]
        ]
      ])
    // What stood there before it was a clone's.
    _ = try? monitor.run("blockdev-del", ["node-name": .string("z" + export.name)])
  }

  /// Nodes for layers and all below them.
  func open(_ layers: [DiskLayer], _ state: inout State, _ monitor: Monitor) throws {
    var below: DiskLayer?
    for layer in layers.reversed() {
      if !state.open.contains(layer.id) {
        try add(layer, over: below, state, monitor)
        state.open.insert(layer.id)
      }
      below = layer
    }
  }

  private func add(
    _ layer: DiskLayer, over below: DiskLayer?, _ state: State, _ monitor: Monitor
  ) throws {
    let file: JSONValue
    if layer.host == state.ownHost {
      file = ["driver": "file", "filename": .string(store.layerPath(layer.id)), "read-only": true]
    } else {
      guard let source = state.sources[layer.host] else {
        throw DiskError("host \(layer.host), which has a layer of the disk, is not in the cluster")
      }
      file = try remote(layer, source, monitor)
    }
    do { try monitor.run("blockdev-add", Self.options(of: layer, file: file, over: below)) } catch {
      deleteRemote(layer.id, monitor)
      throw error
    }
  }

  /// What a layer's node is made and opened anew with.
  static func options(of layer: DiskLayer, file: JSONValue, over below: DiskLayer?) -> JSONValue {
    var options: [String: JSONValue] = [
      "driver": .string(layer.format.rawValue), "node-name": .string(node(layer)), "read-only": true,
      "file": file,
    ]
    if layer.format == .qcow2 { options["backing"] = below.map { .string(node($0)) } ?? .null }
    return .object(options)
  }

  /// What is read of another host's layer is fetched from it and kept. The cache is written without syncs: `LayerStore`
  /// removes it after the host's restart.
  private func remote(_ layer: DiskLayer, _ source: Source, _ monitor: Monitor) throws -> JSONValue {
    let network = "n" + layer.id
    // Also from a daemon that runs since before this host came into the cluster.
    _ = try? monitor.run(
      "object-add",
      [
        "qom-type": "tls-creds-x509", "id": "cluster", "dir": .string(paths.certificates),
        "endpoint": "client", "verify-peer": true,
      ])
    try monitor.run(
      "blockdev-add",
      [
        "driver": "nbd", "node-name": .string(network), "read-only": true, "export": .string(layer.id),
        "server": ["type": "inet", "host": .string(source.address), "port": .string("\(source.port)")],
        "tls-creds": "cluster", "tls-hostname": .string(source.tlsName),
        "reconnect-delay": .int(Int64(Self.reconnectSeconds)),
      ])
    do {
      let cache = store.cachePath(layer.id)
      if !FileManager.default.fileExists(atPath: cache) {
        let nodes = try monitor.run("query-named-block-nodes").elements
        let image = nodes.first { $0["node-name"]?.string == network }?["image"]
        guard case .int(let bytes)? = image?["virtual-size"] else {
          throw DiskError("the size of a layer on \(layer.host) is not known")
        }
        do {
          try ImageTool.create(cache + ".new", options: "cluster_size=64k", virtualBytes: UInt64(bytes))
          try systemCall("rename", subject: cache) { rename(cache + ".new", cache) }
        } catch {
          unlink(cache + ".new")
          throw DiskError.making(in: store.directory, error)
        }
      }
      // Not within the layer's own options: those say that it is read only, and this is not.
      try monitor.run(
        "blockdev-add",
        [
          "driver": "copy-on-read", "node-name": .string("r" + layer.id),
          "file": [
            "driver": "qcow2", "node-name": .string("c" + layer.id), "backing": .string(network),
            "cache": ["no-flush": true],
            "file": ["driver": "file", "filename": .string(cache), "cache": ["no-flush": true]],
          ],
        ])
      return .string("r" + layer.id)
    } catch {
      _ = try? monitor.run("blockdev-del", ["node-name": .string(network)])
      throw error
    }
  }

  func delete(_ layer: String, _ monitor: Monitor) throws {
    try monitor.run("blockdev-del", ["node-name": .string("l" + layer)])
    deleteRemote(layer, monitor)
  }

  /// Layers of this host have no such nodes.
  private func deleteRemote(_ layer: String, _ monitor: Monitor) {
    for kind in ["r", "n"] { _ = try? monitor.run("blockdev-del", ["node-name": .string(kind + layer)]) }
  }

  /// Exports of an earlier daemon that are nobody's any more.
  func removeUnknown(_ state: State, _ monitor: Monitor) throws {
    for id in try monitor.run("query-block-exports").elements.compactMap({ $0["id"]?.string }) {
      let name = String(id.dropFirst())
      guard id.first == "x", state.exports[name] == nil else { continue }
      try monitor.run("block-export-del", ["id": .string(id), "mode": "hard"])
      try awaitGone(name, monitor)
      for kind in ["e", "z"] { _ = try? monitor.run("blockdev-del", ["node-name": .string(kind + name)]) }
    }
  }

  /// An export goes when its last connection is closed, which "hard" does, but not at once.
  func awaitGone(_ name: String, _ monitor: Monitor) throws {
    for _ in 0..<200 {
      let exports = try monitor.run("query-block-exports").elements.compactMap { $0["id"]?.string }
      if !exports.contains("x" + name) { return }
      usleep(1_000)
    }
  }
}
