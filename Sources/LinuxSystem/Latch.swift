import Synchronization

/// A flag that is raised once and stays up.
public final class Latch: Sendable {
  private let value = Atomic(false)
  public init() {}
  public var isRaised: Bool { value.load(ordering: .acquiring) }
  public func raise() { value.store(true, ordering: .releasing) }
}
