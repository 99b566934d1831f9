import LinuxSystem

/// Two levels of checkpoints, as CloneCloud has them (HotOS 2009, section 3): coarse ones in the background, and close ones
/// while a fork to the standby's host is near, so that little is missing there when it comes.
extension ForkService {
  /// From one to the next, at least; and no more than half of the time one is on its way.
  private static let closeInterval = Duration.seconds(5)
  /// A ticket that has waited for so long is not in a hurry.
  private static let closeTime: UInt64 = 120_000_000

  /// A program in the VM has been granted a ticket: if one of its clones will be on the standby's host, checkpoints come
  /// close behind each other until it is used.
  func keepStandbyClose(_ ticket: String) {
    guard let parent = tickets[ticket]?.record.parent, !closeCheckpoints.contains(parent),
      isForkNear(parent, by: ticket)
    else { return }
    closeCheckpoints.insert(parent)
    Task {
      let end = monotonicMicroseconds() + Self.closeTime
      while isForkNear(parent, by: ticket), monotonicMicroseconds() < end {
        var took = Duration.zero
        // What stands on the standby's pages would make a checkpoint wait, and the fork would find an older standby.
        if !hasClonesByStandby(parent) {
          let begin = monotonicMicroseconds()
          do { _ = try await takeCheckpoint(of: parent, for: .onDemand) } catch {
            log.notice("no checkpoint ahead of a fork: \(error)")
            break
          }
          took = .microseconds(Int64(monotonicMicroseconds() - begin))
        }
        try? await Task.sleep(for: max(Self.closeInterval - took, took))
      }
      closeCheckpoints.remove(parent)
    }
  }

  private func isForkNear(_ parent: String, by ticket: String) -> Bool {
    guard let replication = replications[parent], replication.base != nil, !replication.isReplaced,
      tickets[ticket]?.record.state == .granted
    else { return false }
    return machines(of: ticket).contains { $0.host == replication.host }
  }

  private func hasClonesByStandby(_ parent: String) -> Bool {
    guests.values.contains {
      $0.record.role == .clone && $0.record.name.hasPrefix(parent + ".") && !$0.record.state.isOver
        && $0.record.host == replications[parent]?.host
    }
  }
}
