import CTrace
import Glibc

/// Leave to make clones: the next call's is asked for while the program still runs, so that its VM waits already.
final class Tickets {
  private let shared: UnsafeMutablePointer<ct_shared>
  private let host: String
  private var asking: Conversation?
  /// What is under way and nobody waits for.
  private var loose: [Conversation] = []

  init(_ shared: UnsafeMutablePointer<ct_shared>, host: String) {
    self.shared = shared
    self.host = host
  }

  private var inUse: String {
    get { text(ct_ticket(shared)) }
    set { setText(newValue, ct_ticket(shared), Int(CT_TICKET_SIZE)) }
  }

  private var ahead: String {
    get { text(ct_ahead(shared)) }
    set { setText(newValue, ct_ahead(shared), Int(CT_TICKET_SIZE)) }
  }

  func askAhead() {
    guard asking == nil, ahead.isEmpty else { return }
    var request = Conversation.request(SF_AGENT_REQUEST_TICKET)
    request.number = 1
    withUnsafeMutableBytes(of: &request.snapshot) { $0.copyBytes(from: host.utf8.prefix(39)) }
    asking = Conversation(request)
  }

  /// A ticket for one clone; `wait` waits for a descriptor. Nil: none is to be had.
  func take(_ wait: (Int32) throws -> Bool) rethrows -> String? {
    if ahead.isEmpty {
      askAhead()
      guard let asking, try wait(asking.descriptor) else {
        self.asking = nil
        return nil
      }
      noteAhead()
    }
    let ticket = ahead
    inUse = ticket
    ahead = ""
    return ticket.isEmpty ? nil : ticket
  }

  /// Takes what has come of the request.
  private func noteAhead() {
    guard let asking else { return }
    if let answer = asking.receive(), answer.error == 0, answer.count > 0 { ahead = ticketName(answer) }
    self.asking = nil
  }

  /// Ends the clone of the ticket in use and forgets the ticket; nothing is waited for.
  func release() {
    loose.removeAll { $0.isReadable }
    guard !inUse.isEmpty else { return }
    for type in [SF_AGENT_KILL, SF_AGENT_JOIN] {
      if let conversation = Conversation(Conversation.request(type, ticket: inUse)) {
        loose.append(conversation)
      }
    }
    inUse = ""
  }

  /// Ends all clones, and waits until it is so.
  func giveUp() {
    if asking != nil {
      var waiting = pollfd(fd: asking!.descriptor, events: Int16(POLLIN), revents: 0)
      if poll(&waiting, 1, 5000) == 1 { noteAhead() }
    }
    release()
    if !ahead.isEmpty {
      inUse = ahead
      ahead = ""
      release()
    }
    for conversation in loose {
      var waiting = pollfd(fd: conversation.descriptor, events: Int16(POLLIN), revents: 0)
      _ = poll(&waiting, 1, 10_000)
    }
    loose = []
  }
}
