import Foundation
import LinuxSystem
import Logging
import Synchronization

/// Serves this host's layers to other hosts: nbdkit's file plugin on `served/`, read-only, under the cluster's TLS. A host
/// needs a certificate of the cluster and the layer's id, which it learns with a descriptor; nbdkit lists none.
///
/// nbdkit has no state: one that dies is replaced, and the clients come again.
public final class LayerServer: Sendable {
  private let store: LayerStore
  private let certificates: String
  private let pidFile: String
  private let logPath: String
  private let log: Logger
  private let address = Mutex<(host: String, port: Int)?>(nil)

  /// `certificates`: a directory with `ca-cert.pem`, `server-cert.pem`, `server-key.pem`.
  public init(store: LayerStore, certificates: String, pidFile: String, logPath: String, log: Logger) {
    self.store = store
    self.certificates = certificates
    self.pidFile = pidFile
    self.logPath = logPath
    self.log = log
  }

  /// The layers can be read at that address when this returns. Blocks; idempotent.
  public func serve(_ layers: [String], address: String, port: Int) throws {
    try self.address.withLock { known in
      for layer in layers { try store.serve(layer) }
      known = (address, port)
      try start(address, port)
    }
  }

  /// One that has died is replaced.
  public func replaceIfGone() throws {
    try address.withLock { known in if let known { try start(known.host, known.port) } }
  }

  private func start(_ address: String, _ port: Int) throws {
    if running() != nil { return }
    let pid = try DetachedProcess.spawn(
      "/usr/bin/nbdkit",
      arguments: [
        "--foreground", "--readonly", "--filter=exportname", "--ipaddr", address, "--port", "\(port)",
        "--tls=require", "--tls-certificates=\(certificates)", "--tls-verify-peer", "--pidfile", pidFile,
        "file", "dir=\(store.servedDirectory)", "exportname-list=empty",
      ], logPath: logPath)
    // It writes the file when it listens.
    for _ in 0..<1000 {
      if running() == pid {
        log.info("other hosts can read layers", metadata: ["pid": "\(pid)", "port": "\(port)"])
        return
      }
      if DetachedProcess.hasExited(pid) { break }
      usleep(5_000)
    }
    throw DiskError("nbdkit did not start on \(address):\(port): \(lastLine(of: logPath))")
  }

  /// It only reads: nothing is lost, and it is not to wait for its clients.
  public func stop() {
    address.withLock { known in
      known = nil
      if let pid = running() {
        kill(pid, SIGKILL)
        for _ in 0..<1000 where !Self.hasEnded(pid) { usleep(1_000) }
      }
      unlink(pidFile)
    }
  }

  /// Its port is free: a process loses its memory, and with it its command line, before its sockets.
  private static func hasEnded(_ pid: pid_t) -> Bool {
    guard let status = FileManager.default.contents(atPath: "/proc/\(pid)/stat") else { return true }
    let fields = String(decoding: status, as: UTF8.self).split(separator: ")").last?.split(separator: " ")
    return fields?.first == "Z"
  }

  private func running() -> pid_t? {
    guard let text = FileManager.default.contents(atPath: pidFile),
      let pid = pid_t(String(decoding: text, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)),
      let line = FileManager.default.contents(atPath: "/proc/\(pid)/cmdline"),
      String(decoding: line, as: UTF8.self).contains("dir=" + store.servedDirectory)
    else { return nil }
    return pid
  }
}
