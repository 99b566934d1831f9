import Glibc
import GuestWire

/// What guest processes have asked of the host and are not answered yet.
///
/// A request keeps its number when it is sent again to a new sfd, which tells by it what the old one has done.
final class Requests {
  struct Pending {
    /// Nil: the agent's own.
    var client: LocalClient?
    var message: GuestMessage
  }

  private let port: HostPort
  private var pending: [UInt32: Pending] = [:]
  private var lastNumber: UInt32 = 0

  init(port: HostPort) { self.port = port }

  func takeNumber() -> UInt32 {
    lastNumber = lastNumber == .max ? 1 : lastNumber + 1
    return lastNumber
  }

  func ask(_ message: GuestMessage, for client: LocalClient?) {
    let number = takeNumber()
    pending[number] = Pending(client: client, message: message)
    port.send(message, request: number)
  }

  /// The process went away: the host need not go on.
  func cancel(_ client: LocalClient) {
    for (number, request) in pending where request.client === client {
      pending[number] = nil
      port.send(.cancel, request: number)
    }
  }

  func sendAgain() {
    for (number, request) in pending.sorted(by: { $0.key < $1.key }) {
      port.send(request.message, request: number)
    }
  }

  func peek(_ number: UInt32) -> Pending? { pending[number] }

  /// Ends a request. Nil if its process has gone, or the host answers what was not asked.
  func take(_ number: UInt32) -> Pending? { pending.removeValue(forKey: number) }

  /// In a clone: takes the request of the process that waits for its fork, and fails all others, which are the
  /// parent's to be answered.
  func takeAtFork(_ number: UInt32) -> Pending? {
    let waiting = pending.removeValue(forKey: number)
    for request in pending.values {
      request.client?.fail(ECANCELED, "the VM was forked while this process waited")
    }
    pending = [:]
    return waiting
  }
}
