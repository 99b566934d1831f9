import Hypervisor
import Memtap

/// What the user is told: one sentence `what failed: why. What to do.` and the kind that becomes an exit status.
public struct ForkError: Error, Sendable, CustomStringConvertible {
  public enum Code: Sendable, Equatable {
    case invalid  // exit 2
    case notFound  // exit 3
    case refused  // exit 4: quota, permission, state
    case exists  // exit 4
    case failed  // exit 1
  }
  public var code: Code
  public var message: String

  public init(_ code: Code, _ message: String) {
    self.code = code
    self.message = message
  }

  public var description: String { message }

  /// Wraps what a lower module threw: `cannot fork dev: <cause>. <remedy>`.
  static func wrap(_ what: String, _ error: any Error) -> ForkError {
    switch error {
    case let error as ForkError: return error
    case let error as HypervisorError:
      switch error.code {
      case .notFound: return ForkError(.notFound, "\(what): \(error.cause). See sfctl ps.")
      case .nameTaken: return ForkError(.exists, "\(what): \(error.cause). Choose another name.")
      case .outOfMemory:
        return ForkError(.refused, "\(what): \(error.cause). End a VM or ask for less memory.")
      case .unavailable: return ForkError(.failed, "\(what): \(error.cause). Run sfctl doctor.")
      case .incompatible, .timedOut, .failed: return ForkError(.failed, "\(what): \(error.cause).")
      }
    case let error as MemtapError:
      switch error.code {
      case .outOfMemory:
        return ForkError(.refused, "\(what): \(error.cause). End a VM or ask for fewer clones.")
      case .unsupported: return ForkError(.failed, "\(what): \(error.cause). Run sfctl doctor.")
      case .unavailable: return ForkError(.failed, "\(what): the pager went away. Try again.")
      case .notFound, .state, .failed: return ForkError(.failed, "\(what): \(error.cause).")
      }
    case is CancellationError: return ForkError(.failed, "\(what): cancelled.")
    default: return ForkError(.failed, "\(what): \(error).")
    }
  }
}
