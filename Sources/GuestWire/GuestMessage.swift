/// What sfd and a guest's agent say to each other. docs/guest-wire.md tables the fields and tells the conversations.
public enum GuestMessage: Equatable, Sendable {
  // host → guest: the life of the VM
  case hello(Hello)
  /// A fork is coming. `dropsCache`: the guest gives up its clean page cache before.
  case prepare(dropsCache: Bool)
  /// The parent goes on after a fork; it keeps its epoch.
  case resume(epoch: UInt64)
  case identity(Identity)
  case shutdown
  /// The device VM's own network, and the names in it; again when there are more names. Clones inherit it.
  case network(Network)

  // guest → host: answers to those
  case welcome(Welcome)
  /// From here the agent sends nothing until `resume` or `identity`. A reason: it could not prepare. The kernel's note
  /// VMCOREINFO: its guest-physical address, and bytes; 0 if it has none, or none that the host may go by.
  case prepared(reason: String?, noteAddress: UInt64, noteBytes: UInt32)
  case identityTaken(IdentityTaken)
  /// A reason: it could not be set up.
  case networkTaken(reason: String?)

  // guest → host: requests of guest processes
  case requestTicket(clones: UInt32, hierarchical: Bool, host: String = "")
  case clone(ticket: String)
  case checkpoint
  case createClones(snapshot: String, ticket: String)
  case exit(vmid: UInt32, status: Int32, result: [UInt8])
  /// A negative time-out waits for ever, 0 asks without waiting.
  case join(ticket: String, timeoutMilliseconds: Int64)
  case kill(ticket: String)
  /// Answered when the clone runs.
  case cloneName(ticket: String, vmid: UInt32)
  /// The process that asked has gone; the frame's request number says which request.
  case cancel

  // host → guest: answers to those
  case ticketGranted(ticket: String, granted: UInt32)
  case cloned(vmid: UInt32, granted: UInt32)
  case checkpointed(snapshot: String)
  /// One clone's end, as many as there are, and then `done`.
  case joinStatus(JoinStatus)
  case cloneNamed(name: String)
  case done

  // commands that the host runs in the guest
  case exec(Exec)
  case execInput(id: UInt32, bytes: [UInt8])
  case execInputClosed(id: UInt32)
  case execSignal(id: UInt32, signal: Int32)
  case execStarted(id: UInt32, pid: Int32)
  case execOutput(id: UInt32, stream: ExecStream, bytes: [UInt8])
  /// 128 + signal for a command that a signal ended.
  case execExited(id: UInt32, status: Int32)

  // commands that the guest's processes run in clones of their VM; each frame bears the request number of its `run`
  case run(Run)
  case runInput(bytes: [UInt8])
  case runInputClosed
  case runSignal(signal: Int32)
  case runOutput(stream: ExecStream, bytes: [UInt8])
  /// The last of a command; `failed` in its place if it could not be run, or not to its end.
  case runExited(status: Int32)

  // both ways
  /// The answer to a request that failed; `errno` is positive, Linux's number.
  case failed(errno: Int32, message: String)
  /// The receiver of a stream has room for so many bytes more.
  case execCredit(id: UInt32, stream: ExecStream, bytes: UInt32)
  case runCredit(stream: ExecStream, bytes: UInt32)

  /// What each stream of a command may carry before its first credit, bytes.
  public static let execInitialWindow = 256 << 10
  /// What one `execInput` or `execOutput` carries at most, bytes.
  public static let execChunkLimit = FieldLimit.stream
  /// What each stream of a guest's command in a clone may carry before its first credit, bytes. Less than of the
  /// host's commands: a guest may have `runLimit` of these.
  public static let runInitialWindow = 64 << 10
  /// Commands in clones that the processes of one guest may have at once.
  public static let runLimit = 128
  /// What a clone may send home with `exit`, bytes.
  public static let resultLimit = FieldLimit.result
}

public enum ExecStream: UInt8, Sendable, CaseIterable {
  case input = 0
  case output = 1
  case error = 2
}

extension GuestMessage {
  public struct Hello: Equatable, Sendable {
    /// Tells one connection of a daemon from the next.
    public var session: UInt64
    /// The VM's epoch; the agent takes it as its own.
    public var epoch: UInt64
    public var hostTimeNanoseconds: UInt64

    public init(session: UInt64, epoch: UInt64, hostTimeNanoseconds: UInt64) {
      self.session = session
      self.epoch = epoch
      self.hostTimeNanoseconds = hostTimeNanoseconds
    }
  }

  public struct Welcome: Equatable, Sendable {
    public var agentVersion: String
    public var kernelRelease: String
    public var vcpus: UInt32
    public var bootID: String
    public var epoch: UInt64

    public init(
      agentVersion: String, kernelRelease: String, vcpus: UInt32, bootID: String, epoch: UInt64
    ) {
      self.agentVersion = agentVersion
      self.kernelRelease = kernelRelease
      self.vcpus = vcpus
      self.bootID = bootID
      self.epoch = epoch
    }
  }

  /// Who a clone is from now on.
  public struct Identity: Equatable, Sendable {
    public static let machineIDLength = 16
    public static let seedLength = 64

    public var epoch: UInt64
    /// The clone's number, and with `processes` > 1 the first of that many.
    public var vmid: UInt32
    public var processes: UInt32
    public var hostname: String
    public var machineID: [UInt8]
    /// CLOCK_REALTIME to set.
    public var wallClockNanoseconds: UInt64
    public var seed: [UInt8]
    public var ticket: String
    public var snapshot: String
    /// The request of the process that waits in sf_clone or sf_checkpoint_parent, 0 if none does.
    public var cloneRequest: UInt32
    /// Dotted IPv4 address with prefix length ("10.0.0.2/24"), or empty.
    public var ipAddress: String
    /// "52:54:00:…", or empty.
    public var macAddress: String
    /// Dotted IPv4 address, or empty.
    public var gateway: String

    public init(
      epoch: UInt64, vmid: UInt32, processes: UInt32 = 1, hostname: String, machineID: [UInt8],
      wallClockNanoseconds: UInt64, seed: [UInt8], ticket: String, snapshot: String,
      cloneRequest: UInt32, ipAddress: String = "", macAddress: String = "", gateway: String = ""
    ) {
      self.epoch = epoch
      self.vmid = vmid
      self.processes = processes
      self.hostname = hostname
      self.machineID = machineID
      self.wallClockNanoseconds = wallClockNanoseconds
      self.seed = seed
      self.ticket = ticket
      self.snapshot = snapshot
      self.cloneRequest = cloneRequest
      self.ipAddress = ipAddress
      self.macAddress = macAddress
      self.gateway = gateway
    }
  }

  /// Who the VM is in its family's network.
  public struct Network: Equatable, Sendable {
    /// Dotted IPv4 address with prefix length.
    public var ipAddress: String
    /// Dotted IPv4 address, or empty.
    public var gateway: String
    /// Lines for /etc/hosts: an address and a name each.
    public var names: String

    public init(ipAddress: String, gateway: String, names: String) {
      self.ipAddress = ipAddress
      self.gateway = gateway
      self.names = names
    }
  }

  public struct IdentityTaken: Equatable, Sendable {
    /// Nil: taken whole. A clone that gives a reason must not be used.
    public var reason: String?
    /// From the identity's arrival in the agent to this answer.
    public var microseconds: UInt64

    public init(reason: String?, microseconds: UInt64) {
      self.reason = reason
      self.microseconds = microseconds
    }
  }

  public struct JoinStatus: Equatable, Sendable {
    public enum How: UInt8, Sendable, CaseIterable {
      case exited = 1
      case killed = 2
      case lost = 3
    }

    public var vmid: UInt32
    public var how: How
    /// What the clone gave to sf_exit; meaningful only for `exited`.
    public var status: Int32
    public var result: [UInt8]
    /// Why, for `killed` and `lost`.
    public var reason: String

    public init(vmid: UInt32, how: How, status: Int32, result: [UInt8], reason: String) {
      self.vmid = vmid
      self.how = how
      self.status = status
      self.result = result
      self.reason = reason
    }
  }

  /// A command for a clone of this VM, or for a clone of a clone.
  public struct Run: Equatable, Sendable {
    public var clone: String
    public var arguments: [String]
    /// "NAME=value"; empty: that of the clone's agent.
    public var environment: [String]

    public init(clone: String, arguments: [String], environment: [String] = []) {
      self.clone = clone
      self.arguments = arguments
      self.environment = environment
    }
  }

  public struct Exec: Equatable, Sendable {
    public var id: UInt32
    public var arguments: [String]
    /// "NAME=value"; empty: the agent's own environment.
    public var environment: [String]

    public init(id: UInt32, arguments: [String], environment: [String] = []) {
      self.id = id
      self.arguments = arguments
      self.environment = environment
    }
  }
}
