import CTrace
import Glibc

/// Leave to make clones: the next call's is asked for while the program still runs, so that its VM waits already.
final class Tickets {
  private let shared: UnsafeMutablePointer<ct_shared>
  private let host: String
  private var asking: Conversation?
  /// What is under way and nobody waits for.
  private var loose: [(ticket: String, conversation: Conversation, isJoin: Bool)] = []

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
    var request = Conversation.request(host.isEmpty ? SF_AGENT_REQUEST_TICKET : SF_AGENT_REQUEST_TICKET_ON)
    request.number = 1
    asking = Conversation(request, Array(host.utf8))
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

  /// Where the answer to a request comes; -1: none is awaited.
  var descriptor: Int32 { asking?.descriptor ?? -1 }

  /// Takes a ticket that has come: from then on it is known to a successor, too.
  func look() {
    if let asking, asking.isReadable { noteAhead() }
  }

  /// Takes what has come of the request. Noted first and then received: a ticket that its asker has not received is ended
  /// by the agent when the asker dies, one that is noted by the successor.
  private func noteAhead() {
    guard let asking else { return }
    if let answer = asking.peek(), answer.error == 0, answer.count > 0 { ahead = ticketName(answer) }
    _ = asking.receive()
    self.asking = nil
  }

  /// Ends the clone of the ticket in use and forgets the ticket; nothing is waited for.
  func release() {
    look(atEnds: 0)
    guard !inUse.isEmpty else { return }
    if freePlace == nil { look(atEnds: 10_000) }
    if let place = freePlace { setText(inUse, ct_leaving(shared, place), Int(CT_TICKET_SIZE)) }
    end(inUse)
    inUse = ""
  }

  private func end(_ ticket: String) {
    for type in [SF_AGENT_KILL, SF_AGENT_JOIN] {
      if let conversation = Conversation(Conversation.request(type, ticket: ticket)) {
        loose.append((ticket, conversation, type == SF_AGENT_JOIN))
      }
    }
  }

  /// Where a ticket is noted until it has ended, for a successor.
  private var freePlace: Int32? {
    (0..<Int32(CT_LEAVING_LIMIT)).first { text(ct_leaving(shared, $0)).isEmpty }
  }

  /// Forgets what has ended; waits so long for each.
  private func look(atEnds milliseconds: Int32) {
    loose.removeAll { ticket, conversation, isJoin in
      var waiting = pollfd(fd: conversation.descriptor, events: Int16(POLLIN), revents: 0)
      guard poll(&waiting, 1, milliseconds) == 1 else { return false }
      for place in 0..<Int32(CT_LEAVING_LIMIT) where isJoin && text(ct_leaving(shared, place)) == ticket {
        setText("", ct_leaving(shared, place), Int(CT_TICKET_SIZE))
      }
      return true
    }
  }

  /// Whether there is anything for `giveUp` to do.
  var areHeld: Bool {
    asking != nil || !loose.isEmpty || !inUse.isEmpty || !ahead.isEmpty
      || (0..<Int32(CT_LEAVING_LIMIT)).contains { !text(ct_leaving(shared, $0)).isEmpty }
  }

  /// Ends all clones, and waits until it is so.
  func giveUp() {
    if asking != nil {
      var waiting = pollfd(fd: asking!.descriptor, events: Int16(POLLIN), revents: 0)
      if poll(&waiting, 1, 5000) == 1 { noteAhead() }
    }
    // Those that a tracer before was ending; its requests have died with it.
    let known = Set(loose.map(\.ticket))
    for place in 0..<Int32(CT_LEAVING_LIMIT) {
      let ticket = text(ct_leaving(shared, place))
      if !ticket.isEmpty, !known.contains(ticket) { end(ticket) }
    }
    release()
    if !ahead.isEmpty {
      inUse = ahead
      ahead = ""
      release()
    }
    look(atEnds: 10_000)
    loose = []
  }
}
