import Foundation
import LinuxSystem
import Logging
import Synchronization

/// This host's `qemu-storage-daemon`: it reads layers, fetches those of other hosts and keeps what came, and exports to
/// each VM's QEMU, by NBD over a Unix socket, the disk that the VM was made from.
///
///     export of a VM ─▶ raw "e…"  ─▶ what it was made from, put there when the VM becomes a clone
///                                     qcow2 "l…"  ─▶ layer/ID                                        a layer of this host
///                                     qcow2 "l…"  ─▶ copy-on-read "r…" ─▶ cache/ID ─▶ nbd "n…", TLS  of another one
///                                        └ backing: the layer below it
///
/// It only ever reads what does not change. So one that dies is replaced, with the same exports, and QEMU's NBD clients
/// ask again; what a VM writes is in its own QEMU and never here.
///
/// All calls block.
public final class StorageDaemon: Sendable {
  public struct Paths: Sendable {
    /// A directory that QEMU's user may enter; the sockets are made in it.
    public var sockets: String
    public var log: String
    /// A directory with this host's `ca-cert.pem`, `client-cert.pem`, `client-key.pem`, if it is in a cluster.
    public var certificates: String
    public init(sockets: String, log: String, certificates: String) {
      self.sockets = sockets
      self.log = log
      self.certificates = certificates
    }
    /// The NBD server of QEMUs here. An export's name is a secret.
    public var exports: String { "\(sockets)/exports.sock" }
    var monitor: String { "\(sockets)/monitor.sock" }
  }

  /// What a VM's QEMU is connected to. `layers` empty: nothing yet, it reads as zeros.
  public struct Export: Sendable, Equatable {
    public var name: String
    public var virtualBytes: UInt64
    public var layers: [DiskLayer]
    public init(name: String, virtualBytes: UInt64, layers: [DiskLayer]) {
      self.name = name
      self.virtualBytes = virtualBytes
      self.layers = layers
    }
  }

  /// Where another host's layers are read.
  public struct Source: Sendable {
    public var address: String
    public var port: Int
    /// What the host's certificate is made out to.
    public var tlsName: String
    public init(address: String, port: Int, tlsName: String) {
      self.address = address
      self.port = port
      self.tlsName = tlsName
    }
  }

  /// Seconds that a read of another host's layer waits for it to come back, before the guest is told of an error.
  public static let reconnectSeconds = 20

  let paths: Paths
  let store: LayerStore
  private let log: Logger
  let state: Mutex<State>

  struct State {
    var ownHost: String
    var monitor: Monitor?
    var exports: [String: Export] = [:]
    /// Exports that could not be made of a successor's, by name: their layers could not be had.
    var unmade: Set<String> = []
    /// Exports that have been taken away, and the nodes below them not yet: whoever read from them was still at it.
    var leaving: Set<String> = []
    /// Layers that have nodes, by id.
    var open: Set<String> = []
    var sources: [String: Source] = [:]
    /// Whether what comes of other hosts' layers is kept, and those of which it is not.
    var isKeeping = true
    var passing: Set<String> = []
  }

  public var exportsSocket: String { paths.exports }

  public init(paths: Paths, store: LayerStore, ownHost: String, log: Logger) {
    self.paths = paths
    self.store = store
    self.log = log
    state = Mutex(State(ownHost: ownHost))
  }

  /// This host has come into a cluster under that name.
  public func setOwnHost(_ name: String) { state.withLock { $0.ownHost = name } }

  /// Lets go of it, as a daemon's end does; it goes on.
  public func disconnect() { state.withLock { $0.monitor = nil } }

  /// Takes over one that runs, and gives it what an earlier daemon's VMs need. None is started for nothing.
  public func adopt(_ exports: [Export]) throws {
    try state.withLock { state in
      for export in exports { state.exports[export.name] = export }
      if exports.isEmpty {
        // It serves nobody.
        if let monitor = try? Monitor(path: paths.monitor) { _ = try? monitor.run("quit") }
        return
      }
      _ = try running(&state)
    }
  }

  /// One that has died is replaced, if anybody needs it. To be called again and again, also after it has thrown.
  public func replaceIfGone() throws {
    try state.withLock { state in
      if let monitor = state.monitor {
        guard monitor.isGone else {
          if let failure = try makeUnmade(&state, monitor) { throw failure }
          return
        }
        log.error("the storage daemon has died; starting another")
        state.monitor = nil
      }
      if !state.exports.isEmpty { _ = try running(&state) }
    }
  }

  /// Where the layers of that host are.
  public func setSource(_ source: Source, of host: String) {
    state.withLock { $0.sources[host] = source }
  }

  public func add(_ export: Export) throws {
    try state.withLock { state in
      try again(&state) { state, monitor in try make(export, &state, monitor) }
      state.exports[export.name] = export
    }
  }

  /// The export reads as these layers from now on. Whoever has read from it before must not notice: it is for a VM that has
  /// not run.
  public func bind(_ name: String, to layers: [DiskLayer]) throws {
    try state.withLock { state in
      guard var export = state.exports[name] else { throw DiskError("there is no export \(name)") }
      export.layers = layers
      try again(&state) { state, monitor in
        try open(layers, &state, monitor)
        try point(export, monitor)
      }
      state.exports[name] = export
      if !state.isKeeping { try again(&state) { state, monitor in try passOrKeep(&state, monitor) } }
    }
  }

  /// Makes ready to bind to these layers.
  public func open(_ layers: [DiskLayer]) throws {
    try state.withLock { state in
      try again(&state) { state, monitor in try open(layers, &state, monitor) }
    }
  }

  /// Brings all of these layers here in the background, at most so fast; 0: as fast as it goes. Idempotent.
  public func fetchAll(_ layers: [DiskLayer], bytesPerSecond: Int64) throws {
    try state.withLock { state in
      try again(&state) { state, monitor in
        try open(layers, &state, monitor)
        for layer in layers where layer.host != state.ownHost {
          do {
            try monitor.run(
              "block-stream",
              [
                "job-id": .string("s" + layer.id), "device": .string("c" + layer.id),
                "speed": .int(bytesPerSecond),
              ])
          } catch is Monitor.Refused {
            // It is being fetched, or has been.
          }
        }
      }
    }
  }

  /// Idempotent; whoever reads from it has gone.
  public func remove(_ name: String) {
    state.withLock { state in
      guard let export = state.exports.removeValue(forKey: name), let monitor = state.monitor else { return }
      do {
        try monitor.run("block-export-del", ["id": .string("x" + name), "mode": "hard"])
        try? awaitGone(name, monitor)
        try monitor.run("blockdev-del", ["node-name": .string("e" + name)])
        if export.layers.isEmpty { try monitor.run("blockdev-del", ["node-name": .string("z" + name)]) }
      } catch is Monitor.Refused {
        // A successor has not made it, or a read of it has not ended.
        state.leaving.insert(name)
      } catch {
        state.monitor = nil
      }
    }
  }

  /// Ends it, if it serves nobody.
  public func stop() {
    state.withLock { state in
      guard state.exports.isEmpty, let monitor = state.monitor ?? (try? Monitor(path: paths.monitor)) else {
        return
      }
      _ = try? monitor.run("quit")
      state.monitor = nil
      for path in [paths.monitor, paths.exports] { unlink(path) }
    }
  }

  /// Closes layers that nobody needs.
  public func close(allBut needed: Set<String>) {
    state.withLock { state in
      guard let monitor = state.monitor else { return }
      if let nodes = state.leaving.isEmpty ? nil : try? nodeNames(monitor) {
        for name in state.leaving {
          for node in ["e" + name, "z" + name] where nodes.contains(node) {
            _ = try? monitor.run("blockdev-del", ["node-name": .string(node)])
          }
          if !nodes.contains("e" + name) { state.leaving.remove(name) }
        }
      }
      let used = Set(state.exports.values.flatMap(\.layers).map(\.id)).union(needed)
      // Each stands on those below it.
      while let gone = state.open.subtracting(used).first(where: { (try? delete($0, monitor)) != nil }) {
        state.open.remove(gone)
        state.passing.remove(gone)
      }
    }
  }

  // MARK: the daemon

  /// Runs the commands; once more with a successor if the daemon dies of them or is dead.
  func again(_ state: inout State, _ body: (inout State, Monitor) throws -> Void) throws {
    let monitor = try running(&state)
    do {
      try body(&state, monitor)
    } catch let error as Monitor.Refused {
      throw error.asDiskError
    } catch let error as DiskError {
      throw error
    } catch {
      log.error("the storage daemon is gone (\(error)); starting another")
      state.monitor = nil
      try body(&state, try running(&state))
    }
  }

  private func running(_ state: inout State) throws -> Monitor {
    if let monitor = state.monitor { return monitor }
    let monitor: Monitor
    if let known = try? Monitor(path: paths.monitor) {
      monitor = known
    } else {
      monitor = try start()
    }
    state.monitor = monitor
    state.open = try openLayers(monitor)
    state.passing = []
    state.leaving = []
    try removeUnknown(state, monitor)
    state.unmade = Set(state.exports.keys)
    if let failure = try makeUnmade(&state, monitor) { log.error("VMs can not read their disks: \(failure)") }
    if !state.isKeeping { try passOrKeep(&state, monitor) }
    return monitor
  }

  private func start() throws -> Monitor {
    let arguments = [
      "--chardev", "socket,path=\(paths.monitor),server=on,wait=off,id=monitor", "--monitor",
      "chardev=monitor",
      "--nbd-server", "addr.type=unix,addr.path=\(paths.exports),max-connections=0",
    ]
    for path in [paths.monitor, paths.exports] { unlink(path) }
    let pid = try DetachedProcess.spawn(
      "/usr/bin/qemu-storage-daemon", arguments: arguments, logPath: paths.log)
    for _ in 0..<1000 {
      if let monitor = try? Monitor(path: paths.monitor) {
        // Guarded by the exports' names, for QEMU runs as another user.
        chmod(paths.exports, 0o666)
        log.info("the storage daemon runs", metadata: ["pid": "\(pid)"])
        return monitor
      }
      if DetachedProcess.hasExited(pid) { break }
      usleep(5_000)
    }
    throw DiskError("qemu-storage-daemon did not start: \(lastLine(of: paths.log))")
  }

  /// An earlier daemon may have opened some.
  private func openLayers(_ monitor: Monitor) throws -> Set<String> {
    Set(try nodeNames(monitor).filter { $0.first == "l" }.map { String($0.dropFirst()) })
  }
}
