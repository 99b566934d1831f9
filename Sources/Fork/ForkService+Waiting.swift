/// Whoever joins a ticket waits here for it to change.
extension ForkService {
  /// Returns when the ticket has changed, the deadline is over, or the task is cancelled.
  func waitForChange(of ticket: String, until deadline: ContinuousClock.Instant?) async {
    nextWatcher += 1
    let key = nextWatcher
    let timer = deadline.map { deadline in
      Task {
        try? await Task.sleep(until: deadline, clock: .continuous)
        self.wakeWatcher(key)
      }
    }
    await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        if Task.isCancelled {
          continuation.resume()
        } else {
          watchers[key] = (ticket, continuation)
        }
      }
    } onCancel: {
      Task { await self.wakeWatcher(key) }
    }
    timer?.cancel()
  }

  private func wakeWatcher(_ key: UInt64) {
    watchers.removeValue(forKey: key)?.continuation.resume()
  }

  func changed(_ ticket: String) {
    for (key, watcher) in watchers where watcher.ticket == ticket { wakeWatcher(key) }
  }
}
