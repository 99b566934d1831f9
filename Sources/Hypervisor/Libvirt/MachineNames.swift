import Synchronization

/// Names that several threads add and take away.
final class MachineNames: Sendable {
  private let names = Mutex<Set<String>>([])
  func withLock<R>(_ body: (inout Set<String>) -> R) -> R {
    var result: R?
    names.withLock { result = body(&$0) }
    return result!
  }
}
