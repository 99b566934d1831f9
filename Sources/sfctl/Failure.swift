import GRPCCore
import LinuxSystem
import Wire

/// A command that did not do what it was asked: a sentence for the user and the exit status.
struct Failure: Error {
  /// `what failed: why. What to do.`
  var message: String
  var status: Int32
  /// The daemon did not answer to the end; what it did is not known.
  var isConnectionLost = false

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
      isConnectionLost = Self.isTransport(error)
    default:
      self.init("it failed: \(error).")
    }
  }

  private static func sentence(_ error: RPCError) -> String {
    let log = RuntimePaths.fromEnvironment().daemonLog
    if isTransport(error) {
      let cause = error.cause.map { " (\($0))" } ?? ""
      return "lost the daemon: \(error.message)\(cause). Repeat the command; the daemon's log is \(log)."
    }
    return error.message.isEmpty ? "the daemon refused without a reason (\(error.code))." : error.message
  }

  /// Words of the transport, not of the daemon: the connection was lost, or never made.
  private static func isTransport(_ error: RPCError) -> Bool {
    error.cause != nil || error.message.hasPrefix("Stream unexpectedly closed")
  }
}
