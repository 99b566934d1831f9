/// What Fork needs of a virtual machine monitor. The libvirt backend is `LibvirtHypervisor`.
///
/// All calls block: they are made on worker threads (`LinuxSystem.WorkerThreads`), never in a Swift task.
public protocol Hypervisor: AnyObject, Sendable {
  /// How guests run here, and how that was decided (shown by `sfctl doctor`).
  var accelerator: AcceleratorChoice { get }
  /// The connection URI, e.g. `qemu:///embed?root=/var/lib/snowfork/libvirt`.
  var uri: String { get }
  /// Identifies what a device state can be loaded by: QEMU version, machine type, CPU model, accelerator.
  /// A descriptor made under another one is refused.
  var compatibility: String { get }

  /// How much of a machine's RAM lies below 4 GiB in its guest's physical addresses; the rest begins at 4 GiB.
  func lowMemoryBytes(of memoryBytes: UInt64) -> UInt64

  /// Starts a machine. A parent boots and runs on return; a slot is on return a paused domain that waits with
  /// `-incoming defer`. On failure nothing of it is left.
  func start(_ spec: MachineSpec) throws(HypervisorError) -> MachineStatus

  /// Whether `start` need not wait until an ended machine of this name is gone from the process table, which is up to
  /// process 1 if the process that had started it has died.
  func isFree(_ name: String) -> Bool

  /// Every domain of ours (by metadata in its XML), running or not. Used at start to adopt what runs.
  func machines() throws(HypervisorError) -> [MachineStatus]

  /// Stops the machine by migrating its device state (no RAM: `x-ignore-shared`) into `deviceState`, a memfd at
  /// offset 0; calls `whileStopped` once the state is complete and the virtual CPUs stand still; then lets the
  /// machine run on. It runs on also when `whileStopped` throws (the error is passed on) or the saving fails. The disks are
  /// turned beside it: all of them or none, also if `whileStopped` throws; if this does not throw, all of them are.
  func freeze(
    _ name: String, deviceState: CInt, disks: [DiskTurn], whileStopped: () throws -> Void
  ) throws -> FreezeTimes

  /// The files of each of the machine's disks, from the one that is written to down.
  func diskFiles(_ name: String) throws(HypervisorError) -> [[String]]

  /// Which of the machine's disks that node is written to for, in the numbers of `diskFiles`; nil: none any more.
  func disk(of name: String, atNode node: String) throws(HypervisorError) -> Int?

  /// Writes what the file `upper` of a disk has into `lower`, the one below it, and takes `upper` out of the disk. Nobody
  /// else may read `lower`. False: it was called off by `stopMerging` and nothing has changed for the guest.
  func merge(_ name: String, disk: Int, upper: String, lower: String) throws(HypervisorError) -> Bool

  /// Calls off a merge in progress, if there is one; `merge` returns.
  func stopMerging(_ name: String)
  /// Calls off a merge whose caller has died. On return there is none.
  func endMerging(_ name: String) throws(HypervisorError)

  /// Loads a device state into a slot, whose RAM has been remapped before, and lets it run.
  /// `deviceState` is read from its own offset to its end and may be closed afterwards.
  /// On return the virtual CPUs run. On failure the slot is unusable and should be destroyed.
  func activate(_ name: String, deviceState: CInt) throws(HypervisorError) -> ActivateTimes

  /// Lets a machine that stands still run (a parent whose daemon died in mid-freeze). No error if it runs.
  func resume(_ name: String) throws(HypervisorError)

  /// Limits each virtual CPU to `percent` of a processor, 1 to 100, for as long as the machine lives, whoever lives beside
  /// it. Throws `.unavailable` where the kernel can not.
  func limitProcessors(of name: String, percent: Int) throws(HypervisorError)

  /// Asks the guest to power off by ACPI. Does not wait.
  func requestShutdown(_ name: String) throws(HypervisorError)
  /// Ends it at once. Not an error if it does not exist. On return no domain, process or file of it is left.
  func destroy(_ name: String) throws(HypervisorError)

  /// Ends of machines and faults of their disks, as libvirt tells them. One consumer.
  var events: AsyncStream<MachineEvent> { get }
}

public enum Accelerator: String, Sendable, Codable { case kvm, tcg }

public struct AcceleratorChoice: Sendable, Codable {
  public var accelerator: Accelerator
  /// A sentence: `TCG: /proc/cpuinfo shows neither vmx nor svm`.
  public var reason: String
  public init(accelerator: Accelerator, reason: String) {
    self.accelerator = accelerator
    self.reason = reason
  }
}

public struct MachineSpec: Sendable, Codable {
  public enum Role: String, Sendable, Codable, CaseIterable { case parent, slot }
  /// The domain's name: `dev`, `dev.3`, or a slot's until it becomes a clone.
  public var name: String
  public var uuid: String
  public var role: Role
  public var memoryBytes: UInt64
  public var vcpus: Int
  /// Of a parent. A slot needs none: its RAM comes from the snapshot.
  public var kernelPath: String?
  public var initrdPath: String?
  public var kernelCommandLine: String
  /// virtio-blk disks, in order, as many and as large for a parent as for its slots.
  public var disks: [MachineDisk]
  /// A parent has one if and only if its slots have.
  public var network: MachineNetwork?
  /// A fresh one for every machine: the guest kernel reseeds its random numbers when it changes.
  public var generationID: String
  /// Unix socket that QEMU listens on; its other end is the virtio-serial port `org.snowfork.agent`.
  public var agentSocketPath: String
  public var consoleLogPath: String
  /// Environment of the QEMU process, e.g. LD_PRELOAD of the RAM shim and its token.
  public var environment: [String: String]

  public init(
    name: String, uuid: String, role: Role, memoryBytes: UInt64, vcpus: Int, kernelPath: String? = nil,
    initrdPath: String? = nil, kernelCommandLine: String = "", disks: [MachineDisk] = [],
    network: MachineNetwork? = nil, generationID: String, agentSocketPath: String, consoleLogPath: String,
    environment: [String: String] = [:]
  ) {
    self.name = name
    self.uuid = uuid
    self.role = role
    self.memoryBytes = memoryBytes
    self.vcpus = vcpus
    self.kernelPath = kernelPath
    self.initrdPath = initrdPath
    self.kernelCommandLine = kernelCommandLine
    self.disks = disks
    self.network = network
    self.generationID = generationID
    self.agentSocketPath = agentSocketPath
    self.consoleLogPath = consoleLogPath
    self.environment = environment
  }
}

/// A virtio-net card at a tap that is there.
public struct MachineNetwork: Sendable, Codable {
  /// The tap's name.
  public var tap: String
  /// What the card has at first.
  public var mac: String
  /// Bytes of an IP packet.
  public var mtu: Int
  public init(tap: String, mac: String, mtu: Int) {
    self.tap = tap
    self.mac = mac
    self.mtu = mtu
  }
}

/// A disk of a machine: a file of its own, over what an NBD server has.
public struct MachineDisk: Sendable, Codable {
  public enum Format: String, Sendable, Codable { case raw, qcow2 }

  public struct Backing: Sendable, Codable {
    public var export: String
    /// The server's Unix socket.
    public var socketPath: String
    /// Seconds for which a read waits for a server that is gone.
    public var reconnectSeconds: Int
    public init(export: String, socketPath: String, reconnectSeconds: Int) {
      self.export = export
      self.socketPath = socketPath
      self.reconnectSeconds = reconnectSeconds
    }
  }

  public var path: String
  public var format: Format
  public var isReadOnly: Bool
  /// Read where `path` has nothing; of qcow2 only.
  public var backing: Backing?
  public init(path: String, format: Format, isReadOnly: Bool = false, backing: Backing? = nil) {
    self.path = path
    self.format = format
    self.isReadOnly = isReadOnly
    self.backing = backing
  }
}

/// A disk that gets a new file to be written while the machine stands still; what it had is then read only.
public struct DiskTurn: Sendable {
  /// Which of the machine's disks.
  public var index: Int
  /// An empty qcow2 file of the disk's size, which QEMU may write.
  public var path: String
  /// Its name in QEMU from then on: at most 31 letters and digits, never used in this machine.
  public var node: String
  public init(index: Int, path: String, node: String) {
    self.index = index
    self.path = path
    self.node = node
  }
}

public struct MachineStatus: Sendable {
  public enum State: String, Sendable { case running, paused, ended }
  public var name: String
  public var uuid: String
  public var role: MachineSpec.Role
  public var state: State
  public var pid: Int32
  public init(name: String, uuid: String, role: MachineSpec.Role, state: State, pid: Int32) {
    self.name = name
    self.uuid = uuid
    self.role = role
    self.state = state
    self.pid = pid
  }
}

/// Microseconds. `pause` is from QEMU's own STOP and RESUME event times.
public struct FreezeTimes: Sendable {
  public var pauseMicroseconds: UInt64
  public var totalMicroseconds: UInt64
  public init(pauseMicroseconds: UInt64, totalMicroseconds: UInt64) {
    self.pauseMicroseconds = pauseMicroseconds
    self.totalMicroseconds = totalMicroseconds
  }
}

public struct ActivateTimes: Sendable {
  /// From the call until the virtual CPUs ran (QEMU's RESUME event).
  public var totalMicroseconds: UInt64
  public init(totalMicroseconds: UInt64) { self.totalMicroseconds = totalMicroseconds }
}

public enum MachineEvent: Sendable {
  public enum Cause: String, Sendable { case shutdown, destroyed, crashed, failed }
  case ended(name: String, cause: Cause)
  /// The guest was told of an I/O error. The same fault of a machine is told again after a minute at the soonest.
  case diskFailed(name: String, DiskFault)
}

/// Why a request of a guest to a disk has failed.
public struct DiskFault: Sendable, Hashable {
  /// Where the request went in QEMU.
  public var node: String
  public var isWrite: Bool
  /// In the words of strerror(3).
  public var reason: String
  public init(node: String, isWrite: Bool, reason: String) {
    self.node = node
    self.isWrite = isWrite
    self.reason = reason
  }
}
