import Foundation
import LinuxSystem
import Memtap
import Wire

/// What `sfctl ps` and `stats` show.
extension ForkService {
  struct VMView: Sendable {
    var record: VMRecord
    var pid: Int32
    var presentBytes: UInt64
    var privateBytes: UInt64
  }

  /// All VMs by name; those that have ended only on demand.
  func vms(includingEnded: Bool) async throws -> [VMView] {
    let here = guests.values.map(\.record).filter { record in
      record.state == .ended ? includingEnded : record.host == nil
    }
    let records = here.sorted { $0.name.localizedStandardCompare($1.name) == .orderedAscending }
    let memoryDirectory = configuration.memtap.memory
    return try await workers.run {
      records.map { record in
        let pid = record.state.isOver ? 0 : Int32(record.pid)
        let memory = GuestResidency.read(
          pid: pid, below: memoryDirectory, ramBytes: record.memoryBytes)
        return VMView(
          record: record, pid: pid, presentBytes: memory.presentBytes, privateBytes: memory.privateBytes)
      }
    }
  }

  struct SnapshotView: Sendable {
    var record: SnapshotRecord
    var clones: Int
    var presentBytes: UInt64
  }

  func snapshotViews() async throws -> [SnapshotView] {
    let counters = try await memtap.run { try $0.statistics().snapshots }
    let present = Dictionary(
      counters.map { ($0.snapshot, $0.pagesPresent) }, uniquingKeysWith: { first, _ in first })
    return snapshots.values.sorted { $0.createdUnix < $1.createdUnix }.map {
      SnapshotView(
        record: $0, clones: liveClones(of: $0.id).count, presentBytes: (present[$0.id] ?? 0) * 4096)
    }
  }

  /// Of this host's VMs; another host's ticket is shown there.
  func ticketViews() -> [Snowfork_V1_Ticket] {
    tickets.values.filter { $0.record.home == nil }.sorted { $0.record.createdUnix < $1.record.createdUnix }
      .map { ticket in
        .with {
          $0.ticket = ticket.record.id
          $0.parent = ticket.record.parent
          $0.snapshot = ticket.record.snapshot ?? ""
          $0.state = isFinished(ticket.record.id) ? "finished" : ticket.record.state.rawValue
          $0.requested = UInt32(ticket.record.requested)
          $0.granted = UInt32(ticket.record.granted)
          $0.alive = UInt32(machines(of: ticket.record.id).count { $0.state != .ended })
        }
      }
  }

  private static let outcomeLimit = 64

  func remember(_ outcome: Outcome) {
    let id = outcome.ticket.id
    outcomes[id] = outcome
    outcomeOrder.append(id)
    if outcomeOrder.count > Self.outcomeLimit { outcomes[outcomeOrder.removeFirst()] = nil }
  }

  /// The fork that a ticket was used for, and how its clones are or were.
  func describe(ticket id: String) throws(ForkError) -> Outcome {
    guard var outcome = outcomes[id] else {
      guard tickets[id] != nil else { throw unknownTicket(id) }
      throw ForkError(.refused, "cannot describe \(id): nothing was cloned with it yet. Clone first.")
    }
    let clones = machines(of: id)
    if !clones.isEmpty { outcome.clones = clones }
    return outcome
  }

  func runningCount() -> Int { guests.values.count { $0.record.state != .ended } }

  enum StatisticsTarget: Sendable {
    case vm(MemtapStatistics.VMCounters, MemtapStatistics.SnapshotCounters?)
    case snapshot(MemtapStatistics.SnapshotCounters)
    case ticket(String, [MemtapStatistics.VMCounters], MemtapStatistics.SnapshotCounters?)
  }

  /// The counters of a clone, a snapshot or a ticket; of an empty target, of every clone and snapshot.
  func statistics(of target: String) async throws -> [StatisticsTarget] {
    let all = try await memtap.run { try $0.statistics() }
    func snapshotCounters(_ id: String?) -> MemtapStatistics.SnapshotCounters? {
      all.snapshots.first { $0.snapshot == id }
    }
    if target.isEmpty {
      return all.vms.filter { guests[$0.vm]?.record.role != .slot }.map {
        .vm($0, snapshotCounters($0.snapshot))
      }
        + all.snapshots.map { .snapshot($0) }
    }
    if let vm = all.vms.first(where: { $0.vm == target }) { return [.vm(vm, snapshotCounters(vm.snapshot))] }
    if let snapshot = snapshotCounters(target) { return [.snapshot(snapshot)] }
    if let ticket = tickets[target]?.record {
      let names = Set(machines(of: target).map(\.name))
      return [.ticket(target, all.vms.filter { names.contains($0.vm) }, snapshotCounters(ticket.snapshot))]
    }
    throw ForkError(.notFound, "there is no VM, ticket or snapshot named \(target). See sfctl ps.")
  }
}

/// How much of a guest's RAM a QEMU has in memory, from /proc/PID/smaps (proc(5)).
package struct GuestResidency: Sendable {
  /// Mapped, shared pages too.
  package var presentBytes: UInt64 = 0
  /// Written by this VM: no other VM shares them.
  package var privateBytes: UInt64 = 0

  static func read(pid: Int32, below directory: String, ramBytes: Int64) -> GuestResidency {
    guard pid > 0, let text = try? readTextFile("/proc/\(pid)/smaps") else {
      return GuestResidency()
    }
    return parse(text, below: directory, ramBytes: UInt64(ramBytes))
  }

  /// RAM is where a file below `directory` is mapped, and memory of a clone's own is in between: where RAM begins is told by
  /// any mapping of the file.
  package static func parse(_ smaps: String, below directory: String, ramBytes: UInt64) -> GuestResidency {
    let lines = smaps.split(separator: "\n")
    guard let file = lines.first(where: { $0.contains(directory + "/") }), let place = Mapping(file) else {
      return GuestResidency()
    }
    let start = place.start &- place.offset
    var result = GuestResidency()
    var isGuestRAM = false
    for line in lines {
      guard let word = line.split(separator: " ", maxSplits: 1).first else { continue }
      if !word.hasSuffix(":") {
        isGuestRAM = Mapping(line).map { $0.start >= start && $0.start - start < ramBytes } ?? false
      } else if isGuestRAM {
        let words = line.split(separator: " ")
        guard words.count >= 2, let kibibytes = UInt64(words[1]) else { continue }
        if word == "Rss:" { result.presentBytes += kibibytes << 10 }
        if word == "Anonymous:" { result.privateBytes += kibibytes << 10 }
      }
    }
    return result
  }

  /// `7fc473c00000-7fc483c00000 rw-p 00000000 00:28 30   /path`
  private struct Mapping {
    var start: UInt64
    var offset: UInt64

    init?(_ line: Substring) {
      let words = line.split(separator: " ")
      guard words.count >= 3, let dash = words[0].firstIndex(of: "-"),
        let start = UInt64(words[0][..<dash], radix: 16), let offset = UInt64(words[2], radix: 16)
      else { return nil }
      (self.start, self.offset) = (start, offset)
    }
  }
}
