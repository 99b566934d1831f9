import CloneDisk
import CloneNetwork
import Foundation
import GuestWire
import Hypervisor
import LinuxSystem
import Logging
import Memtap
import NIOPosix

/// The VM-fork service of one host: tickets, the phases of a fork, and the life of clones.
///
/// The actor holds the state; whatever blocks (libvirt, the pager, netlink) runs on `workers`. Its files: `+VMs` starts
/// and stops, `+Disks` and `+Network` do what each step asks of disks and networks, `+Layers` keeps what disks are made
/// of, `+Tickets` grants and joins, `+Slots` has what is granted, `+Fork` forks, `+Snapshots` keeps fork points, `+Ends`
/// ends clones, `+Lives` says until when a name is a VM's, `+Guests` answers programs in guests, `+Runs` runs their commands in clones, `+Adoption` takes over from
/// a daemon that died, `+Views` reports. Over several hosts: `+Hosts` is a ticket's home, `+Distribution` brings snapshots
/// to hosts, `Replication` keeps standbys of VMs, `+Foreign` is the part of a host in another's ticket, `+Hello` what follows from hosts' coming and going,
/// `+Everywhere` asks all hosts.
actor ForkService {
  let configuration: Configuration
  let store: Store
  let hypervisor: any Hypervisor
  let memtap: MemtapSupervisor
  let resources: any ResourceManager
  let cluster: Cluster
  let disks: HostDisks
  /// Or why there is none.
  let network: Result<HostNetwork, NetworkError>
  let loops: MultiThreadedEventLoopGroup
  let workers = WorkerThreads(name: "sfd-work", limit: 16)
  let log: Logger

  /// A VM and the connection to its agent.
  struct Guest {
    var record: VMRecord
    var session: GuestSession?
    /// It was told to shut down: its end is what was asked for.
    var isStopping = false
    /// Why its agent is no longer listened to.
    var cutOff: String?
    /// Tickets it was given, so that a forged one can be told from one that has been joined. Nil after an adoption:
    /// an earlier daemon may have given more.
    var knownTickets: Set<String>? = []
    /// What was made of this very VM, and not of an earlier one of its name. Nil after an adoption.
    var forkPoints: Set<String>? = []
    /// The names of its family that it knows.
    var namesTold = ""
  }

  struct Reservation {
    var record: TicketRecord
    var exits: [Int: ExitRecord] = [:]
    /// Of its slots; as long as they are being started.
    var diskBytes: [UInt64] = []
  }

  var guests: [String: Guest] = [:]
  var tickets: [String: Reservation] = [:]
  var snapshots: [String: SnapshotRecord] = [:]
  /// The last forks, for `describe`, also after their tickets were joined; by ticket, and in their order.
  var outcomes: [String: Outcome] = [:]
  var outcomeOrder: [String] = []
  /// The requests of each guest that are being answered.
  var openRequests: [String: Set<UInt32>] = [:]
  /// How many commands each guest runs in clones, those that are being ended too.
  var openRuns: [String: Int] = [:]
  var turns = Turns()
  /// How many work on the VM of each name, and who waits until nobody does; see `hold`.
  var holders: [String: Int] = [:]
  var awaitingRelease: [String: [CheckedContinuation<Void, Never>]] = [:]
  /// Snapshots on their way to other hosts, or there: by snapshot and host.
  var deliveries: [String: [String: Task<Void, any Error>]] = [:]
  /// VMs of this host with a standby on another, by name; the loops that take their checkpoints.
  var replications: [String: ReplicationRecord] = [:]
  var replicationLoops: [String: Task<Void, Never>] = [:]
  /// Of those that follow a policy, by name.
  var pacings: [String: Pacing] = [:]
  /// VMs after whose turn it is looked which snapshots nobody needs.
  var removalsAfterTurn: Set<String> = []
  /// VMs of which checkpoints come close behind each other, for a fork is near.
  var closeCheckpoints: Set<String> = []
  /// Replicas that ended here and whose hosts have not been told, by host.
  var endedReplicas: [String: Set<String>] = [:]
  /// Standbys on this host of others' VMs, by replica.
  var standbys: [String: StandbyRecord] = [:]
  /// Layers that a checkpoint is being made of, by VM.
  var layersInCheckpoint: [String: Set<String>] = [:]
  /// VMs whose standbys are being cloned.
  var standbysCloned: Set<String> = []
  /// They apply what waits for a standby, by replica.
  var standbyTenders: [String: Task<Void, Never>] = [:]
  /// VMs of which layers are being merged; a fork stops that.
  var merging: Set<String> = []
  /// What hosts need of our disk layers, as each last said, and when.
  var layersWanted: [String: (ids: Set<String>, at: ContinuousClock.Instant)] = [:]
  /// When merging layers of a VM last failed.
  var mergeFailures: [String: ContinuousClock.Instant] = [:]
  /// Families' networks as they were made here, by family; taps by VM, and those that are being removed.
  var networksMade: [String: FamilyNetwork] = [:]
  var taps: [String: String] = [:]
  var tapsLeaving: Set<String> = []
  /// Of families whose home is here.
  var familyNumbers: [String: FamilyNumbers] = [:]
  /// Clones of others' tickets that have ended and whose homes have not been told.
  var unreported: Set<String> = []
  /// Called when a ticket has changed; see `waitForChange`.
  var watchers: [UInt64: (ticket: String, continuation: CheckedContinuation<Void, Never>)] = [:]
  var nextWatcher: UInt64 = 0

  init(
    configuration: Configuration, store: Store, hypervisor: any Hypervisor, memtap: MemtapSupervisor,
    resources: any ResourceManager, cluster: Cluster, disks: HostDisks,
    network: Result<HostNetwork, NetworkError>, loops: MultiThreadedEventLoopGroup, log: Logger
  ) {
    self.configuration = configuration
    self.store = store
    self.hypervisor = hypervisor
    self.memtap = memtap
    self.resources = resources
    self.cluster = cluster
    self.disks = disks
    self.network = network
    self.loops = loops
    self.log = log
  }

  /// Told to the user as it happens: phase, how many done, of how many, text.
  struct Progress: Sendable {
    var phase: String
    var done: Int
    var total: Int
    var text: String
  }
  typealias Report = @Sendable (Progress) async -> Void

  // MARK: look-ups with the user's sentence

  func guest(_ name: String) throws(ForkError) -> Guest {
    guard let guest = guests[name], !guest.record.state.isOver else {
      throw ForkError(.notFound, "there is no VM named \(name). See sfctl ps.")
    }
    return guest
  }

  func session(_ name: String) throws(ForkError) -> GuestSession {
    let guest = try guest(name)
    if let reason = guest.cutOff {
      throw ForkError(
        .failed, "cannot reach the agent of \(name): it was cut off: \(reason). Start the VM anew.")
    }
    if guest.record.traits.isAgentless {
      throw ForkError(
        .refused, "cannot reach the agent of \(name): it was started with --no-agent. Start it without that.")
    }
    guard let session = guest.session, guest.record.state == .running else {
      throw ForkError(
        .refused,
        "cannot reach the agent of \(name): the VM is \(guest.record.state.rawValue). Wait for it to run.")
    }
    return session
  }

  func save(_ name: String) async {
    guard let record = guests[name]?.record else { return }
    await persist("VM \(name)") { try await self.store.save(record) }
  }

  func saveTicket(_ id: String) async {
    guard let record = tickets[id]?.record else { return }
    await persist("ticket \(id)") { try await self.store.save(record) }
  }

  /// The database is what a successor knows: failing to write it is loud, but what runs goes on.
  func persist(_ what: String, _ body: () async throws -> Void) async {
    do { try await body() } catch { log.error("cannot record \(what): \(error)") }
  }

  // MARK: blocking work

  func withHypervisor<T: Sendable>(_ body: @escaping @Sendable (any Hypervisor) throws -> T) async throws -> T
  {
    let hypervisor = hypervisor
    return try await workers.run { try body(hypervisor) }
  }

  static func randomHex(_ bytes: Int) -> String {
    var generator = SystemRandomNumberGenerator()
    return hexadecimal((0..<bytes).map { _ in UInt8.random(in: 0...255, using: &generator) })
  }

  static func hexadecimal(_ bytes: some Sequence<UInt8>) -> String {
    bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
  }

  static func unixNow() -> Int64 { Int64(Date().timeIntervalSince1970) }

  static func wallClockNanoseconds() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }
}
