/// The number of each message on the wire. Numbers are never used again for something else.
public enum MessageType: UInt8, CaseIterable, Sendable {
  // host → guest
  case hello = 1
  case prepare = 2
  case resume = 3
  case identity = 4
  case shutdown = 5
  case network = 6
  case ticketGranted = 16
  case cloned = 17
  case checkpointed = 18
  case done = 19
  case joinStatus = 20
  case cloneNamed = 21
  case exec = 32
  case execInput = 33
  case execInputClosed = 34
  case execSignal = 35
  case runOutput = 40
  case runExited = 41

  // guest → host
  case welcome = 65
  case prepared = 66
  case identityTaken = 68
  case networkTaken = 69
  case requestTicket = 80
  case clone = 81
  case checkpoint = 82
  case createClones = 83
  case exit = 84
  case join = 85
  case kill = 86
  case cancel = 87
  case cloneName = 88
  /// `requestTicket` with a host: a number of its own, for daemons that know only 80.
  case requestTicketOn = 89
  case execStarted = 96
  case execOutput = 97
  case execExited = 98
  case run = 104
  case runInput = 105
  case runInputClosed = 106
  case runSignal = 107

  // both ways
  case failed = 128
  case execCredit = 129
  case runCredit = 130

  public enum Direction: Sendable { case toGuest, toHost, both }

  public var direction: Direction {
    switch rawValue {
    case ..<64: .toGuest
    case ..<128: .toHost
    default: .both
    }
  }
}
