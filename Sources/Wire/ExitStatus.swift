import GRPCCore

/// The exit status of sfctl. A script may rely on these numbers.
public enum ExitStatus: Int32, Sendable {
  case done = 0
  case failed = 1
  /// The command line is wrong.
  case usage = 2
  /// No such VM, ticket or snapshot.
  case notFound = 3
  /// Quota, permission or state.
  case refused = 4

  /// What the daemon's answer means for sfctl's caller.
  public init(_ code: RPCError.Code) {
    self =
      switch code {
      case .notFound: .notFound
      case .resourceExhausted, .permissionDenied, .failedPrecondition, .alreadyExists: .refused
      case .invalidArgument: .usage
      default: .failed
      }
  }
}
