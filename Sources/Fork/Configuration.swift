import Foundation
import Memtap
import Wire

/// Where the daemon keeps its things and which libvirt it drives. Set by the environment, so that tests and a
/// second daemon on one machine are apart in everything.
public struct Configuration: Sendable {
  /// `SNOWFORK_RUN`, by default `/run/snowfork`: sockets, and the tmpfs of guest RAM and page caches.
  public var runDirectory: String
  /// `SNOWFORK_STATE`, by default `/var/lib/snowfork`: database, images, descriptors, console logs.
  public var stateDirectory: String
  /// `SNOWFORK_LIBVIRT_URI`: empty means `qemu:///embed?root=STATE/libvirt`.
  public var libvirtURI: String
  /// `SNOWFORK_HOST`: the name of this host in `ps` and `host ls`.
  public var hostName: String
  /// `SNOWFORK_LOG`: trace, debug, info (the default), notice, warning, error.
  public var logLevel: String?
  /// `SNOWFORK_PUSH=1`: every fork over hosts brings all of its memory to them in the background.
  public var pushesAlways = false
  /// `SNOWFORK_ACTIVATIONS`: how many clones come to life side by side, by default two a processor. More at once are
  /// ready later: each then also serves the timer ticks of the time that it waits for a processor.
  public var activationsAtOnce = 2 * max(2, ProcessInfo.processInfo.activeProcessorCount)
  /// `SNOWFORK_DISK_PORT`: where nbdkit lets other hosts read this one's disk layers.
  public var diskPort = 7544
  /// `SNOWFORK_SUBNET`: of families whose device VM was started without `--subnet`.
  public var subnet = ForkService.usualSubnet
  /// `SNOWFORK_MTU`: bytes of an IP packet in a family; of the hosts' own network 50 less.
  public var mtu = 1450
  /// `SNOWFORK_POWER_SUPPLIES`: where the kernel tells of mains and batteries, for policies of replication.
  public var powerSupplies = "/sys/class/power_supply"
  /// Directory of sfd, sf-memtap and, under `../lib` or `../build/lib`, of the RAM shim.
  public var programDirectory: String

  public init(
    runDirectory: String, stateDirectory: String, libvirtURI: String = "", hostName: String,
    logLevel: String? = nil, programDirectory: String
  ) {
    self.runDirectory = runDirectory
    self.stateDirectory = stateDirectory
    self.libvirtURI = libvirtURI
    self.hostName = hostName
    self.logLevel = logLevel
    self.programDirectory = programDirectory
  }

  public static func fromEnvironment() -> Configuration {
    let environment = ProcessInfo.processInfo.environment
    let own = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? "/usr/bin/sfd"
    let paths = RuntimePaths.fromEnvironment(environment)
    var configuration = Configuration(
      runDirectory: paths.run, stateDirectory: paths.state,
      libvirtURI: environment["SNOWFORK_LIBVIRT_URI"] ?? "",
      hostName: environment["SNOWFORK_HOST"] ?? ProcessInfo.processInfo.hostName,
      logLevel: environment["SNOWFORK_LOG"],
      programDirectory: (own as NSString).deletingLastPathComponent)
    configuration.pushesAlways = environment["SNOWFORK_PUSH"] == "1"
    if let count = environment["SNOWFORK_ACTIVATIONS"].flatMap({ Int($0) }), count > 0 {
      configuration.activationsAtOnce = count
    }
    if let port = environment["SNOWFORK_DISK_PORT"].flatMap({ UInt16($0) }), port > 0 {
      configuration.diskPort = Int(port)
    }
    if let subnet = environment["SNOWFORK_SUBNET"], !subnet.isEmpty { configuration.subnet = subnet }
    if let path = environment["SNOWFORK_POWER_SUPPLIES"], !path.isEmpty { configuration.powerSupplies = path }
    if let mtu = environment["SNOWFORK_MTU"].flatMap({ Int($0) }) { configuration.mtu = mtu }
    return configuration
  }

  /// Where sfctl looks for us.
  public var paths: RuntimePaths { RuntimePaths(run: runDirectory, state: stateDirectory) }
  /// The pager's sockets, and the tmpfs of guest RAM and page caches.
  public var memtap: MemtapPaths { MemtapPaths(run: runDirectory) }
  public var clusterDirectory: String { stateDirectory + "/cluster" }
  public var diskDirectory: String { stateDirectory + "/disks" }
  public var diskSocketDirectory: String { runDirectory + "/disk" }
  public var diskCertificates: String { clusterDirectory + "/tls" }
  public var databasePath: String { stateDirectory + "/snowfork.db" }
  public var libvirtRoot: String { stateDirectory + "/libvirt" }

  public func agentSocketPath(_ vm: String) -> String { runDirectory + "/vm/\(vm)/agent.sock" }
  public func vmDirectory(_ vm: String) -> String { runDirectory + "/vm/\(vm)" }
  public func consoleLogPath(_ vm: String) -> String { stateDirectory + "/console/\(vm).log" }
  public func snapshotDirectory(_ snapshot: String) -> String { stateDirectory + "/snapshots/\(snapshot)" }
  public func descriptorPath(_ snapshot: String) -> String { snapshotDirectory(snapshot) + "/descriptor" }

  /// The RAM shim, beside the programs: of a build tree, then of an installation.
  public func shimLibraryPath() throws(ForkError) -> String {
    let candidates = [
      programDirectory + "/../lib/libsnowfork-ramshim.so",
      programDirectory + "/../build/lib/libsnowfork-ramshim.so",
      programDirectory + "/../../../build/lib/libsnowfork-ramshim.so",
      programDirectory + "/../lib/snowfork/libsnowfork-ramshim.so",
    ]
    for path in candidates where FileManager.default.fileExists(atPath: path) {
      return URL(fileURLWithPath: path).standardizedFileURL.resolvingSymlinksInPath().path
    }
    throw ForkError(
      .failed, "cannot start a VM: libsnowfork-ramshim.so is not beside \(programDirectory). Run make build.")
  }
}
