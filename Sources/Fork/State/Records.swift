import CloneDisk
import GRDB

/// A VM that this daemon answers for, in all of its states. One row a VM; the row of a clone goes with its ticket.
struct VMRecord: Codable, Sendable, FetchableRecord, PersistableRecord {
  static let databaseTableName = "vm"

  enum Role: String, Codable, Sendable { case parent, slot, clone }
  /// ```
  /// starting ──▶ warm (a slot) ──▶ activating ──▶ running ──▶ ending ──▶ ended
  ///     └────────────────────────────────────────▲      (an ended clone stays until its ticket is joined)
  /// ```
  enum State: String, Codable, Sendable {
    case starting, warm, activating, running
    /// How it ended is settled; its domain and files are being removed.
    case ending
    case ended

    var isOver: Bool { self == .ending || self == .ended }
  }

  var name: String
  var uuid: String
  var role: Role
  var state: State
  /// 0 of a device VM. With hierarchical tickets vmid … vmid + processes − 1 live in the VM.
  var vmid: Int
  var processes: Int
  var ticket: String?
  /// What it was cloned from.
  var snapshot: String?
  var image: String
  var memoryBytes: Int64
  var vcpus: Int
  var kernelPath: String?
  var initrdPath: String?
  var commandLine: String
  var generationID: String
  /// Proves to memtap that a shim is this VM's.
  var shimToken: String
  /// Messages of another epoch are dropped: a clone replays what was in flight at the fork.
  var epoch: Int64
  var cpuLimitPercent: Int
  var createdUnix: Int64
  /// Of its QEMU; 0 before it runs.
  var pid: Int64 = 0
  var activateMicroseconds: Int64 = 0
  var readyMicroseconds: Int64 = 0
  /// Of a clone that has ended: when, since the call that made it, and how much of its RAM it had in memory then.
  var endedMicroseconds: Int64 = 0
  var touchedBytes: Int64 = 0
  var privateBytes: Int64 = 0
  /// Why it ended, of an ended one.
  var how: String?
  var reason: String?
  /// Of a clone of a ticket of ours that lives on another host.
  var host: String?
  /// Of a clone here whose ticket is another host's.
  var home: String?
  /// Nil: none.
  var disks: [VMDisk]?
  /// Nil: none.
  var network: NetworkCard?
  var traits = GuestTraits()
}

/// How a guest takes part in forks. Its clones, and theirs, are as it is.
struct GuestTraits: Codable, Sendable, Equatable {
  /// Clones fetch also what was free or is overwritten whole.
  var fetchesAll = false
  /// No agent answers in it, and none is waited for.
  var isAgentless = false
}

/// A reservation for clones.
struct TicketRecord: Codable, Sendable, FetchableRecord, PersistableRecord {
  static let databaseTableName = "ticket"

  enum State: String, Codable, Sendable { case granting, granted, cloning, cloned }
  enum Owner: String, Codable, Sendable { case guest, operatorCommand }

  var id: String
  var parent: String
  var owner: Owner
  /// The request that asked for it, so that a request sent again after a daemon's death is not granted twice.
  var guestRequest: Int64?
  var hierarchical: Bool
  var requested: Int
  /// How many vmids.
  var granted: Int
  var state: State
  var snapshot: String?
  var createdUnix: Int64
  var ticketMicroseconds: Int64 = 0
  /// The host whose ticket it is; nil: ours.
  var home: String?
}

/// A fork point.
struct SnapshotRecord: Codable, Sendable, FetchableRecord, PersistableRecord {
  static let databaseTableName = "snapshot"

  var id: String
  var parent: String
  /// Cloned until somebody removes it; else it goes with its last clone.
  var kept: Bool
  var image: String
  var memoryBytes: Int64
  var vcpus: Int
  var commandLine: String
  var descriptorBytes: Int64
  var pauseMicroseconds: Int64
  var createdUnix: Int64
  /// The request of the process in sf_checkpoint_parent, which waits in every clone too. 0: none.
  var checkpointRequest: Int64
  /// Why it can not be cloned any more.
  var lost: String?
  /// The host that has its origin; nil: this one.
  var home: String?
  /// Nil: none.
  var disks: [DiskPoint]?
  /// Of the VM and its clones; nil: none.
  var network: Family?
  /// Pages that were free in the guest and held data: clones get zeros.
  var freePages: Int64 = 0
  /// Why it is not known what was free.
  var freeUnknown: String?
  /// Of the VM.
  var traits = GuestTraits()
}

/// How one vmid of a ticket ended.
struct ExitRecord: Codable, Sendable, FetchableRecord, PersistableRecord {
  static let databaseTableName = "exit"

  enum How: String, Codable, Sendable { case exited, killed, lost }

  var ticket: String
  var vmid: Int
  var how: How
  var status: Int
  var result: [UInt8]
  var reason: String
}
