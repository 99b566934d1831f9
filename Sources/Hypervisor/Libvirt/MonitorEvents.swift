import Dispatch
import Synchronization

/// An event of a machine's QEMU, with QEMU's own wall-clock time, or the machine's end as libvirt told it.
package struct MonitorEvent: Sendable {
  package enum Kind: Sendable, Equatable {
    /// The virtual CPUs stand still.
    case stopped
    /// The virtual CPUs run.
    case resumed
    /// A migration's new status in QEMU's words: `active`, `completed`, `failed` …
    case migration(String)
    /// There is no such machine any more.
    case ended
  }
  package var kind: Kind
  /// Microseconds since 1970.
  package var time: Int64

  /// Nil for events that nobody here waits for. `details` is the event's data as JSON.
  package init?(name: String, seconds: Int64, microseconds: UInt32, details: String) {
    time = seconds * 1_000_000 + Int64(microseconds)
    switch name {
    case "STOP": kind = .stopped
    case "RESUME": kind = .resumed
    case "MIGRATION": kind = .migration(Self.status(in: details))
    default: return nil
    }
  }

  init(ended time: Int64) {
    kind = .ended
    self.time = time
  }

  /// The value of `status` in a flat JSON object, whose values here are words without escapes. This runs while
  /// a parent stands still, where a JSON decoder's first use would cost milliseconds.
  private static func status(in details: String) -> String {
    let words = details.split(separator: "\"", omittingEmptySubsequences: false)
    let key = words.indices.first { index in
      index + 3 < words.count && words[index] == "status" && words[index + 1].allSatisfy { " :".contains($0) }
    }
    return key.map { String(words[$0 + 2]) } ?? ""
  }
}

/// Brings a machine's events from libvirt's event loop to the thread that waits for them.
package final class MonitorMailbox: Sendable {
  private let arrived = DispatchSemaphore(value: 0)
  private let events = Mutex<[MonitorEvent]>([])

  package func post(_ event: MonitorEvent) {
    events.withLock { $0.append(event) }
    arrived.signal()
  }

  /// The oldest event not taken yet; nil when the deadline has passed without one.
  package func next(before deadline: DispatchTime) -> MonitorEvent? {
    guard arrived.wait(timeout: deadline) == .success else { return nil }
    return events.withLock { $0.removeFirst() }
  }
}

/// The mailboxes of the operations in progress, at most one for each machine.
package final class MonitorMailboxes: Sendable {
  private let open = Mutex<[String: MonitorMailbox]>([:])

  package init() {}

  /// From here to `close`, events of the machine are kept. Nil: an operation on it is already in progress.
  package func open(_ machine: String) -> MonitorMailbox? {
    open.withLock { open in
      guard open[machine] == nil else { return nil }
      let mailbox = MonitorMailbox()
      open[machine] = mailbox
      return mailbox
    }
  }

  package func close(_ machine: String) { open.withLock { _ = $0.removeValue(forKey: machine) } }

  package func post(_ event: MonitorEvent, to machine: String) {
    open.withLock { $0[machine] }?.post(event)
  }
}
