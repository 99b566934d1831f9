import GuestMemory
import LinuxSystem
import Synchronization

/// The RAM of one VM: a parent's, a slot's, a clone's.
///
/// Attachment and userfaultfd are written before the region is given to a thread to serve. From then on everything
/// mutable but `shared` belongs to that thread.
final class Region: @unchecked Sendable {
  let token: String
  let pageCount: Int
  var byteCount: UInt64 { UInt64(pageCount) * UInt64(Page.bytes) }

  /// What several threads ask for.
  struct Shared {
    var name: String
    /// The thread of its family: a slot's changes when it becomes a clone.
    var thread: PagerThread
    /// Nil: QEMU has not connected yet, or has ended.
    var shim: ShimChannel?
    var isForgotten = false
  }
  let shared: Mutex<Shared>
  var name: String { shared.withLock { $0.name } }
  var thread: PagerThread { shared.withLock { $0.thread } }
  var shim: ShimChannel? { shared.withLock { $0.shim } }

  /// Held through arming, activation and release: one of them at a time. Never held by a pager thread.
  let slow = Mutex<Void>(())

  var attachment: Attachment?
  var userfaultfd: Userfaultfd?
  /// Faults of which kind are reported now. Nil: none, or after a takeover not known.
  var mode: Userfaultfd.Mode?

  /// The snapshot whose cache its RAM is mapped on: it is a clone.
  var base: Snapshot?
  /// Runs of zeros that are memory of its own. Not known any more after a restart of the pager.
  var ownZeros: [PageRange] = []
  /// Its snapshots that are kept, oldest first. Only the last one gets pre-images.
  var snapshots: [Snapshot] = []
  var newest: Snapshot? { snapshots.last }
  var arming: Arming?
  /// What clones of it asked for first.
  var workingSet = WorkingSet()
  /// Its thread has served it: what a shim said of it is settled.
  var isServed = false
  /// QEMU has ended.
  var isGone = false
  /// Why it must be ended: a fault of it waits that can not be served rightly.
  var doomReason: String?
  var counters = PagingCounters()

  /// The process and its mapping of RAM.
  struct Attachment {
    var pid: Int32
    /// With the pid it names the process for good.
    var startTime: UInt64
    var address: UInt64
    var ramFile: MemoryFile
    var memory: ProcessMemory
  }

  /// Between `arm` and `commit`.
  struct Arming {
    let staged: Snapshot
    /// Pages whose protection was lifted since, and so may have been written unseen.
    var lifted: PageBitmap
    /// Protection and scan are complete.
    var isComplete = false
  }

  init(name: String, token: String, pageCount: Int, thread: PagerThread) {
    shared = Mutex(Shared(name: name, thread: thread))
    self.token = token
    self.pageCount = pageCount
  }

  deinit { counters.deallocate() }

  @inline(__always)
  func address(of page: PageIndex) -> UInt64 { attachment!.address + UInt64(page) * UInt64(Page.bytes) }

  /// Nil: outside of RAM, which an honest kernel never reports.
  @inline(__always)
  func page(at address: UInt64) -> PageIndex? {
    let start = attachment!.address
    guard address >= start, address < start + byteCount else { return nil }
    return Int((address - start) / UInt64(Page.bytes))
  }
}
