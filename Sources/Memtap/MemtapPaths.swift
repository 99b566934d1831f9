/// Where the pager's sockets and files are. All of them below one run-time directory, `$SNOWFORK_RUN`.
///
/// `mem` is a tmpfs (huge=advise) that the daemon mounts. A restarted pager finds everything below `mem/cache`.
public struct MemtapPaths: Sendable {
  public var run: String
  public init(run: String) { self.run = run }

  /// The daemon's door: root only.
  public var controlSocket: String { "\(run)/memtap.sock" }
  /// The shims' door: in a directory that everyone may enter, guarded by the tokens.
  public var shimDirectory: String { "\(run)/shim" }
  public var shimSocket: String { "\(shimDirectory)/pager.sock" }
  /// Held as long as a pager lives.
  public var lock: String { "\(run)/memtap.lock" }
  public var memory: String { "\(run)/mem" }
  /// libvirt's memory_backing_dir.
  public var ram: String { "\(memory)/ram" }
  public var cache: String { "\(memory)/cache" }
  public var snapshots: String { "\(cache)/snapshots" }
  public var vms: String { "\(cache)/vms" }
  /// Snapshots between arm and commit.
  public var staged: String { "\(cache)/staged" }

  /// What QEMU's environment must hold for the shim at `library`. `token`: 64 lower-case hexadecimal digits.
  public func shimEnvironment(library: String, token: String) -> [String: String] {
    [
      "LD_PRELOAD": library,
      "SNOWFORK_SHIM_SOCKET": shimSocket,
      "SNOWFORK_SHIM_TOKEN": token,
      "SNOWFORK_SHIM_MEMORY": ram,
    ]
  }
}
