import Glibc
import LinuxSystem
import Synchronization
import Testing

/// How many are inside, and the most there were.
private final class Gauge: Sendable {
  private let state = Mutex((now: 0, most: 0))
  var most: Int { state.withLock { $0.most } }
  func enter() {
    state.withLock {
      $0.now += 1
      $0.most = max($0.most, $0.now)
    }
  }
  func leave() { state.withLock { $0.now -= 1 } }
}

@Suite struct WorkerThreadsTests {
  @Test func runsManyBlockingCallsAtOnce() async throws {
    let workers = WorkerThreads(name: "test", limit: 4)
    let running = Gauge()
    try await withThrowingTaskGroup(of: Void.self) { group in
      for _ in 0..<16 {
        group.addTask {
          try await workers.run {
            running.enter()
            usleep(5000)
            running.leave()
          }
        }
      }
      try await group.waitForAll()
    }
    #expect(running.most == 4)
  }

  @Test func passesErrorsOn() async {
    let workers = WorkerThreads(name: "test", limit: 1)
    await #expect(throws: SystemError.self) {
      try await workers.run { throw SystemError("open", errno: ENOENT) }
    }
  }
}
