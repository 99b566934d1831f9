import Glibc
import LinuxSystem
import Synchronization
import Testing

@Suite struct WorkerThreadsTests {
  @Test func runsManyBlockingCallsAtOnce() async throws {
    let workers = WorkerThreads(name: "test", limit: 4)
    let running = Mutex((now: 0, most: 0))
    try await withThrowingTaskGroup(of: Void.self) { group in
      for _ in 0..<16 {
        group.addTask {
          try await workers.run {
            running.withLock {
              $0.now += 1
              $0.most = max($0.most, $0.now)
            }
            usleep(5000)
            running.withLock { $0.now -= 1 }
          }
        }
      }
      try await group.waitForAll()
    }
    #expect(running.withLock { $0.most } == 4)
  }

  @Test func passesErrorsOn() async {
    let workers = WorkerThreads(name: "test", limit: 1)
    await #expect(throws: SystemError.self) {
      try await workers.run { throw SystemError("open", errno: ENOENT) }
    }
  }
}
