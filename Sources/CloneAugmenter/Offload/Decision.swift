import CTrace
import Glibc

/// Where the next call runs.
enum Decision {
  case home
  /// In a clone; nil: however long it takes.
  case away(limitMicroseconds: UInt64?)
}

/// What became of a call, in microseconds and bytes.
struct CallMeasure {
  enum Outcome { case home, merged, dropped, conflict }

  var outcome = Outcome.home
  var forwardMicroseconds: UInt64 = 0
  var runMicroseconds: UInt64 = 0
  var mergeMicroseconds: UInt64 = 0
  var bytesHome: UInt64 = 0
}

/// The one place where it is decided, call by call, whether to go, and where it is learnt what that took.
final class Decider {
  private let options: Options

  init(_ options: Options) { self.options = options }

  /// `canGo` nil: nothing stands against it; else why it has to run here.
  func decide(call: UInt64, canGo: Bool) -> Decision {
    guard canGo else { return .home }
    switch options.mode {
    case .never: return .home
    case .always, .auto: return .away(limitMicroseconds: options.limitMicroseconds)
    }
  }

  /// A call that went, or ran at home; of one at home only the outcome is known here.
  func learn(_ measure: CallMeasure) {}

  /// Whether a ticket is to be had before the next call comes.
  var wantsTicketAhead: Bool { options.mode != .never }
}
