import Synchronization

/// Names that several threads add and take away.
final class MachineNames: Sendable {
  private let names = Mutex<Set<String>>([])

  var isEmpty: Bool { names.withLock { $0.isEmpty } }
  func contains(_ name: String) -> Bool { names.withLock { $0.contains(name) } }
  func insert(_ name: String) { names.withLock { _ = $0.insert(name) } }
  /// Whether it was there.
  @discardableResult
  func remove(_ name: String) -> Bool { names.withLock { $0.remove(name) != nil } }
}
