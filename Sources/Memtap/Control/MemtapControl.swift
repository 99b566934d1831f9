import GuestKernel

/// What the daemon asks of the pager. Implemented by `MemtapClient` over `memtap.sock`.
///
/// All calls block until the pager has done it; they are made on worker threads. A lost connection throws
/// `MemtapError.code == .unavailable`; the caller starts the pager again and may repeat the call: every call
/// is idempotent.
public protocol MemtapControl: AnyObject, Sendable {
  func status() throws(MemtapError) -> MemtapStatus

  /// Says that a QEMU with the RAM shim will connect with this token (see `ramshim_protocol.h`).
  func expect(vm: String, token: String, ramBytes: UInt64) throws(MemtapError)
  /// Waits until the shim of `vm` has connected and its RAM is known.
  func waitForShim(vm: String, timeoutMilliseconds: Int) throws(MemtapError)
  /// Gives a VM another name: a slot becomes a clone.
  func rename(vm: String, to: String) throws(MemtapError)
  /// The VM has ended or will: its region is dropped. Not an error if unknown.
  func forget(vm: String) throws(MemtapError)

  /// First half of a freeze, the VM still running: write-protects its RAM and finds out which pages exist.
  func arm(vm: String) throws(MemtapError)
  /// Second half, the VM stopped: protects again what was written since `arm`. On return the snapshot exists.
  /// The only call inside the parent's pause.
  func commit(vm: String, snapshot: String) throws(MemtapError)
  /// Once, before the snapshot is cloned: finds the pages that its guest's kernel had free, which are zeros to its
  /// clones from now on. With no kernel nothing is free. Answers the page presence for the descriptor.
  func survey(snapshot: String, kernel: SurveyedKernel?) throws(MemtapError) -> SnapshotLayout
  /// Takes an `arm` back; the VM runs on as before.
  func disarm(vm: String) throws(MemtapError)

  /// Remaps a slot's RAM onto the page cache of the snapshot; from now on its faults are served. `avoids`: what a device
  /// fills whole is not fetched, and long runs of zeros are memory of its own.
  func activate(vm: String, snapshot: String, avoids: Bool) throws(MemtapError)
  /// Nobody will clone it any more: removed as soon as no clone and no older snapshot needs it.
  func drop(snapshot: String) throws(MemtapError)

  /// Whether every page of the snapshot is in its cache (or known to be zero): then its origin may end.
  func isWhole(snapshot: String) throws(MemtapError) -> Bool
  /// Copies every page that is still missing from the origin into the cache.
  func complete(snapshot: String) throws(MemtapError)

  /// Serves a snapshot of this host to others from now on; answers where. The port and group are chosen by the pager.
  func serve(snapshot: String, address: String, transport: PageTransport) throws(MemtapError) -> PageOrigin
  /// Makes a snapshot known whose origin is on another host: slots can be activated on it, and its pages come as they
  /// are asked for.
  func attach(_ snapshot: RemoteSnapshot) throws(MemtapError)
  /// Begins or ends bringing all of a remote snapshot here in the background. When all is here, `.whole` is told.
  func push(snapshot: String, _ isOn: Bool) throws(MemtapError)
  /// The origin of a remote snapshot will not answer any more: what is not here is lost.
  func originGone(snapshot: String, reason: String) throws(MemtapError)
  func history(snapshot: String) throws(MemtapError) -> SnapshotHistory

  /// Appends to a file what the pages of a snapshot are, or how they differ from those of an earlier one of the same VM.
  func checkpoint(_ order: CheckpointOrder) throws(MemtapError) -> CheckpointPages
  /// Makes a standby what the checkpoint in the file says. After a crash at any moment it is what it was, or that.
  func receive(standby: String, parent: String, path: String) throws(MemtapError) -> StandbyStatus
  /// Pages that may differ between a snapshot and a standby of another one of its VM, earlier or later.
  func written(_ snapshot: String, since base: String) throws(MemtapError) -> SnapshotLayout
  func standbys() throws(MemtapError) -> [StandbyStatus]

  func statistics() throws(MemtapError) -> MemtapStatistics
}

/// Where a Linux guest's kernel describes its memory.
public struct SurveyedKernel: Sendable, Codable {
  public var note: KernelNotePlace
  /// Bytes of RAM below 4 GiB.
  public var lowBytes: UInt64
  public init(note: KernelNotePlace, lowBytes: UInt64) {
    self.note = note
    self.lowBytes = lowBytes
  }
}

public struct MemtapStatus: Sendable, Codable {
  public var pid: Int32
  public var version: String
  public var vms: [String]
  public var snapshots: [String]
  public init(pid: Int32, version: String, vms: [String], snapshots: [String]) {
    self.pid = pid
    self.version = version
    self.vms = vms
    self.snapshots = snapshots
  }
}

/// Which pages of a snapshot hold data. All others are zero to its clones.
public struct SnapshotLayout: Sendable, Codable {
  public var ramBytes: UInt64
  /// Pages that were free in the guest and held data, so would have been fetched by who allocates them.
  public var freePages = 0
  /// Why it is not known what was free; empty: it is.
  public var freeUnknown = ""
  /// Pages that are not known to be zero, as (first page, page count) runs in ascending order.
  public var existing: [PageRun]
  public struct PageRun: Sendable, Codable, Equatable {
    public var first: UInt32
    public var count: UInt32
    public init(first: UInt32, count: UInt32) {
      self.first = first
      self.count = count
    }
  }
  public init(ramBytes: UInt64, existing: [PageRun]) {
    self.ramBytes = ramBytes
    self.existing = existing
  }
}

/// What the pager tells without being asked, on a connection of its own (`MemtapClient.events`).
public enum MemtapEvent: Sendable, Codable {
  /// A page of this VM can not be served rightly (no memory, origin gone): it must be ended. Its virtual CPUs wait
  /// until then and never see a wrong page.
  case mustEnd(vm: String, reason: String)
  /// The snapshot can not be cloned any more, e.g. because its pre-images could not be kept.
  case snapshotLost(snapshot: String, reason: String)
  /// The shim's socket hung up: QEMU has ended.
  case vmGone(vm: String)
  /// Every page of a remote snapshot is on this host: its origin may end.
  case whole(snapshot: String)
}

/// Microseconds.
public struct LatencySummary: Sendable, Codable {
  public var p50: UInt64
  public var p99: UInt64
  public var max: UInt64
  public init(p50: UInt64 = 0, p99: UInt64 = 0, max: UInt64 = 0) {
    self.p50 = p50
    self.p99 = p99
    self.max = max
  }
}

public struct MemtapStatistics: Sendable, Codable {
  public var vms: [VMCounters]
  public var snapshots: [SnapshotCounters]
  public struct VMCounters: Sendable, Codable {
    public var vm: String
    public var snapshot: String?
    public var pagesTotal: UInt64
    /// MISSING faults served for this VM, and of them those whose page was fetched into the cache for it.
    public var faults: UInt64
    public var pagesFetched: UInt64
    public var pagesPrefetched: UInt64
    /// Resolved as zero without a copy.
    public var pagesZero: UInt64
    /// Filled whole by a device, so not fetched.
    public var pagesOverwritten: UInt64
    public var preimagesSaved: UInt64
    public var faultMicroseconds: LatencySummary
    public var preimageMicroseconds: LatencySummary
  }
  public struct SnapshotCounters: Sendable, Codable {
    public var snapshot: String
    public var origin: String?
    public var pagesTotal: UInt64
    public var pagesPresent: UInt64
    public var pagesFetched: UInt64
    public var pagesPrefetched: UInt64
    public var pagesZero: UInt64
    public var preimagesSaved: UInt64
    public var faults: UInt64
    public var faultMicroseconds: LatencySummary
    public var vms: [String]
    public var lost: String?
    /// Pages that only the origin has.
    public var unsaved: UInt64
    /// Nil: all on this host, and not served to others.
    public var distribution: DistributionCounters?
  }
  public init(vms: [VMCounters], snapshots: [SnapshotCounters]) {
    self.vms = vms
    self.snapshots = snapshots
  }
}
