import Logging

/// All there is of disks on a host.
public final class HostDisks: Sendable {
  public let store: LayerStore
  public let daemon: StorageDaemon
  public let server: LayerServer

  public struct Paths: Sendable {
    /// Files of disks.
    public var directory: String
    /// Where the two programs write their logs.
    public var logs: String
    /// A directory that QEMU's user may enter.
    public var sockets: String
    public var certificates: String
    public init(directory: String, logs: String, sockets: String, certificates: String) {
      self.directory = directory
      self.logs = logs
      self.sockets = sockets
      self.certificates = certificates
    }
  }

  /// `owner`: the user that QEMU runs as.
  public init(_ paths: Paths, ownHost: String, owner: String, log: Logger) throws {
    store = LayerStore(directory: paths.directory, owner: owner)
    try store.prepare()
    daemon = StorageDaemon(
      paths: .init(
        sockets: paths.sockets, log: paths.logs + "/storage-daemon.log",
        certificates: paths.certificates),
      store: store, ownHost: ownHost, log: log)
    server = LayerServer(
      store: store, certificates: paths.certificates, pidFile: paths.sockets + "/nbdkit.pid",
      logPath: paths.logs + "/nbdkit.log", log: log)
  }
}
