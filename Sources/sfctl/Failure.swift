import GRPCCore
import LinuxSystem
import Wire

/// A command that did not do what it was asked: a sentence for the user and the exit status.
struct Failure: Error {
  /// `what failed: why. What to do.`
  var message: String
  var status: Int32

  init(_ message: String, _ status: ExitStatus = .failed) {
    self.message = message
    self.status = status.rawValue
  }

  /// The daemon's own sentence, or what the connection to it says.
  init(_ error: any Error) {
    switch error {
    case let failure as Failure:
      self = failure
    case let error as RPCError:
      self.init(Self.sentence(error), ExitStatus(error.code))
    default:
      self.init("it failed: \(error).")
    }
  }

  private static func sentence(_ error: RPCError) -> String {
    // A transport error has a cause that says more than its message.
    if error.code == .unavailable, let cause = error.cause {
      let log = RuntimePaths.fromEnvironment().daemonLog
      return "cannot reach the daemon: \(error.message) (\(cause)). Its log is \(log)."
    }
    return error.message.isEmpty ? "the daemon refused without a reason (\(error.code))." : error.message
  }
}
