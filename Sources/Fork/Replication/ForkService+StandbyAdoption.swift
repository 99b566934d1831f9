import Foundation
import Memtap

/// What the pager holds is what a standby is. What is recorded of it may be of a checkpoint before: the daemon may have ended
/// before it had recorded the last one, or the pager's answer was lost.
extension ForkService {
  func isOfStandby(_ snapshot: String) -> Bool {
    standbys.keys.contains { snapshot.hasPrefix(StandbyRecord.snapshotPrefix($0)) }
  }

  func adoptStandbys() async {
    let held = (try? await memtap.run { try $0.standbys() }) ?? []
    for (replica, record) in standbys where record.state != .activated {
      standbys[replica]?.state = .standby
      guard let adopted = await adopt(replica, from: held) else {
        log.notice("the standby of \(record.name) was in memory and is gone; its home sends another")
        await dropStandby(replica)
        continue
      }
      do { try await finishDisks(of: adopted) } catch {
        log.error("the disks of the standby of \(record.name) are not written yet: \(error)")
      }
      settleLater(replica)
    }
    for (replica, record) in standbys where record.state == .activated && guests[record.name] == nil {
      await dropStandby(replica)
    }
    let root = configuration.replicaDirectory + "/in"
    for replica in (try? FileManager.default.contentsOfDirectory(atPath: root)) ?? []
    where standbys[replica] == nil {
      configuration.removeReplicaDirectory(configuration.standbyDirectory(replica))
    }
  }

  /// The standby as it can be run: pages, disks and what is recorded are of the same checkpoint. The caller has its turn.
  func confirmedStandby(_ replica: String, _ what: String) async throws -> StandbyRecord {
    guard let recorded = standbys[replica], recorded.state == .standby, !recorded.snapshot.isEmpty else {
      throw ForkError(.refused, "\(what): it was activated meanwhile. See sfctl ps.")
    }
    let held = try await memtap.run { try $0.standbys() }
    guard let adopted = await adopt(replica, from: held) else {
      throw ForkError(
        .failed, "\(what): its pages are gone. Its home sends another, or make one with sfctl replicate.")
    }
    try await finishDisks(of: adopted)
    return adopted
  }

  /// Records what the pager has. Nil: that can not be run.
  private func adopt(_ replica: String, from held: [StandbyStatus]) async -> StandbyRecord? {
    let directory = configuration.standbyDirectory(replica)
    let own = held.filter { $0.standby.hasPrefix(StandbyRecord.snapshotPrefix(replica)) }
    let good = own.filter {
      FileManager.default.fileExists(atPath: Configuration.stateFile(directory, Int64($0.mark.sequence)))
    }
    let last = good.max { $0.mark.sequence < $1.mark.sequence }
    for one in own where one.standby != last?.standby { await release(one.standby) }
    guard let last, let record = standbys[replica] else { return nil }
    let digest = Self.hexadecimal(last.mark.digest)
    if record.snapshot == last.standby, record.digest == digest { return record }
    standbys[replica]?.snapshot = last.standby
    standbys[replica]?.sequence = Int64(last.mark.sequence)
    standbys[replica]?.digest = digest
    standbys[replica]?.queue.removeAll { $0.sequence <= Int64(last.mark.sequence) }
    await saveStandby(replica)
    return standbys[replica]
  }
}
