import Dispatch

/// The phases of a fork, in the order of docs/architecture.md.
public enum ForkPhase: String, Sendable, CaseIterable {
  /// The ticket's slots are started: outside `fork_us`.
  case ticket
  /// The parent's RAM is write-protected while it runs.
  case arm
  /// The agent finishes what it is sending and holds the rest back: begun with `arm`, this is what is left of it.
  case prepare
  /// The parent stands still within this one only.
  case freeze
  /// The pages that the guest had free are found, the parent running again.
  case survey
  /// Device state and RAM layout become a descriptor.
  case descriptor
  /// The descriptor goes to the other hosts of the ticket, once to each: from the first's begin to the last's arrival.
  case distribute
  /// Slots take the descriptor and run.
  case activate
  /// Clones take their identity and answer.
  case ready
}

/// Begin and end of each phase, microseconds since the call.
package struct PhaseLog: Sendable {
  package struct Entry: Sendable {
    package var phase: ForkPhase
    package var beginMicroseconds: UInt64
    package var endMicroseconds: UInt64
  }

  private let start = monotonicMicroseconds()
  package private(set) var entries: [Entry] = []

  package init() {}

  package var elapsedMicroseconds: UInt64 { monotonicMicroseconds() - start }

  package mutating func begin(_ phase: ForkPhase) {
    let now = elapsedMicroseconds
    entries.append(Entry(phase: phase, beginMicroseconds: now, endMicroseconds: now))
  }

  /// Splits the time since `activate` began: the virtual CPUs of the last clone ran at `activated`; the rest is
  /// `ready`.
  package mutating func endActivation(at activated: UInt64) {
    guard let last = entries.lastIndex(where: { $0.phase == .activate }) else { return }
    end()
    let ended = entries[last].endMicroseconds
    let split = max(entries[last].beginMicroseconds, min(activated, ended))
    entries[last].endMicroseconds = split
    entries.append(Entry(phase: .ready, beginMicroseconds: split, endMicroseconds: ended))
  }

  /// A phase that passed beside others, put in its place.
  package mutating func insert(_ phase: ForkPhase, _ microseconds: ClosedRange<UInt64>) {
    let entry = Entry(
      phase: phase, beginMicroseconds: microseconds.lowerBound, endMicroseconds: microseconds.upperBound)
    let order = ForkPhase.allCases
    let place = entries.firstIndex { order.firstIndex(of: $0.phase)! > order.firstIndex(of: phase)! }
    entries.insert(entry, at: place ?? entries.endIndex)
  }

  /// Ends the phase that began last.
  package mutating func end() {
    guard !entries.isEmpty else { return }
    entries[entries.count - 1].endMicroseconds = elapsedMicroseconds
  }
}

func monotonicMicroseconds() -> UInt64 { DispatchTime.now().uptimeNanoseconds / 1000 }
