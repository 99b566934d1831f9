import Glibc

/// A pool of named threads for calls that block, so that none ever holds up a Swift task's thread.
///
/// Threads are started as they are needed, up to `limit`, and stay. Work beyond that waits in order.
public final class WorkerThreads: @unchecked Sendable {
  /// Guards everything below. `wake` is signalled once for each piece of work.
  private let mutex: UnsafeMutablePointer<pthread_mutex_t>
  private let wake: UnsafeMutablePointer<pthread_cond_t>
  private var queue: [@Sendable () -> Void] = []
  private var idle = 0
  private var started = 0
  private let name: String
  private let limit: Int

  /// `name` is what `ps -L` shows, a number behind it; at most 12 bytes of it are seen.
  public init(name: String, limit: Int) {
    precondition(limit > 0)
    self.name = name
    self.limit = limit
    mutex = .allocate(capacity: 1)
    wake = .allocate(capacity: 1)
    pthread_mutex_init(mutex, nil)
    pthread_cond_init(wake, nil)
  }

  /// Runs `body` on one of the threads. A cancelled task still waits for its end: a system call in progress
  /// can not be taken back.
  public func run<T: Sendable>(_ body: @escaping @Sendable () throws -> T) async throws -> T {
    try await withUnsafeThrowingContinuation { continuation in
      submit { continuation.resume(with: Result { try body() }) }
    }
  }

  /// Runs `body` on one of the threads, with nobody waiting for it.
  public func submit(_ body: @escaping @Sendable () -> Void) {
    pthread_mutex_lock(mutex)
    queue.append(body)
    let mayStart = idle < queue.count && started < limit
    if mayStart { started += 1 }
    let number = started
    pthread_cond_signal(wake)
    pthread_mutex_unlock(mutex)
    guard mayStart else { return }
    do {
      try NamedThread("\(name.prefix(12))-\(number)") { [self] in
        work()
      }.detach()
    } catch {
      pthread_mutex_lock(mutex)
      started -= 1
      let nobody = started == 0
      pthread_mutex_unlock(mutex)
      precondition(!nobody, "not even one worker thread could be started: \(error)")
    }
  }

  /// The life of one thread. A pool lives as long as the process, for its threads hold it.
  private func work() {
    pthread_mutex_lock(mutex)
    while true {
      while queue.isEmpty {
        idle += 1
        pthread_cond_wait(wake, mutex)
        idle -= 1
      }
      let body = queue.removeFirst()
      pthread_mutex_unlock(mutex)
      body()
      pthread_mutex_lock(mutex)
    }
  }
}
