import GuestWire

/// What a guest's channel tells the service without being asked.
package enum GuestEvent: Sendable {
  /// A guest process asks for something; `request` pairs the answer.
  case request(UInt32, GuestMessage)
  /// A guest process runs a command in a clone.
  case run(GuestRun)
  /// The guest broke the protocol: its channel is closed for good.
  case cutOff(reason: String)
  /// QEMU closed its end.
  case closed
}

/// Why a question to a guest has no answer. `description` is a clause for the user.
package enum GuestError: Error, Sendable, CustomStringConvertible {
  case notConnected
  case closed
  case cutOff(String)
  case timedOut(seconds: Int)
  case refused(errno: Int32, String)
  case unexpected(String)

  package var description: String {
    switch self {
    case .notConnected: "its agent is not connected"
    case .closed: "its agent's channel closed"
    case .cutOff(let reason): "its agent was cut off: \(reason)"
    case .timedOut(let seconds): "its agent did not answer within \(seconds) s"
    case .refused(_, let message): message
    case .unexpected(let message): "its agent answered out of turn: \(message)"
    }
  }
}
