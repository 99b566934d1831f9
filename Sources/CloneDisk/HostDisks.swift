import Logging

/// All there is of disks on a host.
public final class HostDisks: Sendable {
  public let store: LayerStore
  public let daemon: StorageDaemon
  public let server: LayerServer

  public struct Paths: Sendable {
    /// Files, and the logs of the two programs.
    public var directory: String
    /// A directory that QEMU's user may enter.
    public var sockets: String
    public var certificates: String
    public init(directory: String, sockets: String, certificates: String) {
      self.directory = directory
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
        sockets: paths.sockets, log: paths.directory + "/storage-daemon.log",
        certificates: paths.certificates),
      store: store, ownHost: ownHost, log: log)
    server = LayerServer(
      store: store, certificates: paths.certificates, pidFile: paths.sockets + "/nbdkit.pid",
      logPath: paths.directory + "/nbdkit.log", log: log)
  }
}
