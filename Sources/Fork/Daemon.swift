import CloneDisk
import CloneNetwork
import Foundation
import GRPCCore
import GRPCNIOTransportHTTP2
import Hypervisor
import LinuxSystem
import Logging
import NIOPosix
import Wire

/// sfd: one on a host. Made in `main` before any other thread, then run to its end.
public struct Daemon: Sendable {
  public static let version = snowforkVersion

  private let configuration: Configuration
  private let accelerator: AcceleratorChoice
  /// Why an unusable /dev/kvm could not be hidden: libvirt may then take long to start machines.
  private let notHidden: String?
  /// Held as long as the daemon lives: a second one of the same run directory is refused.
  private let lock: OwnedDescriptor
  /// The mount namespace we were started in, where the tmpfs of guest memory is mounted.
  private let outerMounts: OwnedDescriptor

  /// What must happen while the process has one thread: the lock, the tmpfs, and hiding an unusable /dev/kvm, which
  /// would make libvirt probe it again at every look-up.
  public init(_ configuration: Configuration) throws {
    self.configuration = configuration
    for directory in [configuration.runDirectory, configuration.stateDirectory] {
      try Self.makeDirectory(directory, mode: 0o711)
    }
    lock = try Self.takeLock(configuration)
    outerMounts = try OwnedDescriptor.open("/proc/self/ns/mnt", O_RDONLY)
    try Self.makeDirectory(configuration.memtap.memory, mode: 0o711)
    if !GuestMemoryMount.isMounted(configuration.memtap.memory) {
      try GuestMemoryMount.mount(configuration.memtap.memory)
    }
    do {
      accelerator = try AcceleratorProbe().chooseAndHideUnusableKVM()
      notHidden = nil
    } catch {
      // Where somebody has hidden it already it can not be hidden again.
      accelerator = AcceleratorProbe().choose()
      notHidden = "\(error)"
    }
    for directory in [
      configuration.memtap.ram, configuration.memtap.cache, configuration.runDirectory + "/vm",
      configuration.memtap.shimDirectory, configuration.stateDirectory + "/console",
      configuration.stateDirectory + "/snapshots", configuration.paths.images,
      configuration.diskSocketDirectory,
    ] {
      try Self.makeDirectory(directory, mode: directory == configuration.memtap.ram ? 0o755 : 0o711)
    }
  }

  private static func makeDirectory(_ path: String, mode: Int) throws {
    try FileManager.default.createDirectory(
      atPath: path, withIntermediateDirectories: true, attributes: [.posixPermissions: mode])
  }

  /// Nobody listens any more: whoever holds the lock is cleaning up.
  private static func isEnding(_ configuration: Configuration) -> Bool {
    (try? UnixSocket.connect(path: configuration.paths.socket)) == nil
  }

  private static func takeLock(_ configuration: Configuration) throws -> OwnedDescriptor {
    let file = try OwnedDescriptor.open(configuration.paths.daemonLock, O_RDWR | O_CREAT, mode: 0o600)
    // One that has just been told to end is waited for.
    var attempts = 1000
    while flock(file.raw, LOCK_EX | LOCK_NB) != 0 {
      attempts -= 1
      guard attempts == 0 || !Self.isEnding(configuration) else {
        usleep(10_000)
        continue
      }
      throw ForkError(
        .refused,
        "sfd: cannot start: another sfd runs with \(configuration.runDirectory). Use it, or set SNOWFORK_RUN to another directory."
      )
    }
    return file
  }

  /// Serves until SIGTERM, SIGINT or a Shutdown call. VMs live on, for the next sfd to adopt; if none is left,
  /// neither are the pager and the memory's mount.
  public func run() async throws {
    signal(SIGPIPE, SIG_IGN)
    LoggingSystem.bootstrap(StreamLogHandler.standardError)
    var log = Logger(label: "sfd")
    if let level = configuration.logLevel.flatMap({ Logger.Level(rawValue: $0) }) { log.logLevel = level }
    log.info("starting", metadata: ["version": "\(Self.version)", "accelerator": "\(accelerator.reason)"])

    if let notHidden { log.warning("\(notHidden); starting a machine may take long") }
    chdir("/")
    let memtap = MemtapSupervisor(configuration: configuration, log: log)
    try memtap.start()
    do {
      try await serve(memtap, log)
    } catch {
      releaseMemory(memtap)
      throw error
    }
    releaseMemory(memtap)
  }

  /// Ends the pager and takes the memory's mount away, unless VMs or snapshots live that need them.
  private func releaseMemory(_ memtap: MemtapSupervisor) {
    guard let status = try? memtap.client.status(), status.vms.isEmpty, status.snapshots.isEmpty else {
      return
    }
    memtap.stop()
    try? GuestMemoryMount.unmount(configuration.memtap.memory, in: outerMounts)
    for directory in [
      configuration.memtap.shimDirectory, configuration.diskSocketDirectory,
      configuration.runDirectory + "/vm",
    ] {
      rmdir(directory)
    }
  }

  private func serve(_ memtap: MemtapSupervisor, _ log: Logger) async throws {
    let loops = MultiThreadedEventLoopGroup(numberOfThreads: 2)
    let store = try Store(path: configuration.databasePath)
    let adoptable = try await store.adoptableMachines()
    let hypervisor = try LibvirtHypervisor(
      uri: configuration.libvirtURI.isEmpty
        ? LibvirtHypervisor.embeddedURI(root: configuration.libvirtRoot) : configuration.libvirtURI,
      memoryDirectory: configuration.memtap.ram, accelerator: accelerator,
      isWanted: { adoptable.contains($0) })
    let cluster = try Cluster(
      files: ClusterFiles(directory: configuration.clusterDirectory), host: configuration.hostName, log: log)
    let disks = try HostDisks(
      .init(
        directory: configuration.diskDirectory, logs: configuration.stateDirectory,
        sockets: configuration.diskSocketDirectory,
        certificates: configuration.diskCertificates),
      ownHost: await cluster.host, owner: LibvirtHypervisor.user, log: log)
    let service = ForkService(
      configuration: configuration, store: store, hypervisor: hypervisor, memtap: memtap,
      resources: EmbeddedResourceManager(), cluster: cluster, disks: disks, network: hostNetwork(log),
      loops: loops, log: log)
    await cluster.observe(service)
    try await service.adopt()
    let listener = PeerListener(service: service, version: Self.version)
    do { try await listener.open() } catch { log.error("other hosts can not reach this one: \(error)") }
    await cluster.greetOnce(within: .seconds(1))
    await cluster.greet()

    let (stop, stopContinuation) = AsyncStream.makeStream(of: Void.self)
    let signals = [SIGTERM, SIGINT].map { number in
      Self.onSignal(number) { stopContinuation.yield() }
    }
    defer { for source in signals { source.cancel() } }

    unlink(configuration.paths.socket)
    let server = GRPCServer(
      transport: .http2NIOPosix(
        address: .unixDomainSocket(path: configuration.paths.socket), transportSecurity: .plaintext),
      services: [
        SnowforkAPI(service: service, listener: listener, version: Self.version) { _ in
          stopContinuation.yield()
        }, ReplicasAPI(service: service),
      ])
    // Who may speak to the daemon may do anything here.
    Task { if try await server.listeningAddress != nil { chmod(configuration.paths.socket, 0o600) } }
    try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask { try await server.serve() }
      group.addTask { for await event in hypervisor.events { await service.handle(event) } }
      group.addTask { await service.tendDisks() }
      group.addTask { await service.tendLayers() }
      group.addTask { await service.tendNetworks() }
      group.addTask { for await event in memtap.events { await service.pagerSays(event) } }
      group.addTask {
        for await _ in stop { break }
        server.beginGracefulShutdown()
      }
      try await group.next()
      group.cancelAll()
    }
    log.info("ending")
    await service.closeDisks()
    await listener.close()
    await cluster.close()
    hypervisor.settle()
    unlink(configuration.paths.socket)
  }

  private func hostNetwork(_ log: Logger) -> Result<HostNetwork, NetworkError> {
    do throws(NetworkError) {
      try claimNetworks()
      return .success(try HostNetwork())
    } catch {
      log.error("VMs can have no network: \(error)")
      return .failure(error)
    }
  }

  /// A network namespace has one table of filters: two daemons would take away each other's. A predecessor that was killed
  /// may take a moment to be gone. Kept until this process ends.
  private func claimNetworks() throws(NetworkError) {
    for _ in 0..<100 {
      if let claim = try? UnixSocket.claim(name: "snowfork-networks") {
        _ = Unmanaged.passRetained(claim)
        return
      }
      usleep(50_000)
    }
    throw NetworkError(
      .inUse, "make networks", cause: "another sfd makes those of this machine",
      remedy: "End it, or start this one in a network namespace of its own.")
  }

  private static func onSignal(_ number: CInt, _ body: @escaping @Sendable () -> Void)
    -> any DispatchSourceSignal
  {
    signal(number, SIG_IGN)
    let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
    source.setEventHandler(handler: body)
    source.resume()
    return source
  }
}

extension ForkService {
  func handle(_ event: MachineEvent) async {
    switch event {
    case .ended(let name, let cause): await machineEnded(name, cause: cause)
    case .diskFailed(let name, let fault): await diskFailed(name, fault)
    }
  }
}
