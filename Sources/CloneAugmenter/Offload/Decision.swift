import Augmenter
import Controller
import Glibc

/// Where the next call runs.
enum Decision {
  case home
  /// In a clone; nil: however long it takes.
  case away(limitMicroseconds: UInt64?)
}

/// What became of a call, in microseconds and bytes.
struct CallMeasure {
  enum Outcome { case home, merged, cameHomeEarly, gaveUp, dropped, conflict }

  var outcome = Outcome.home
  /// How its clone was had.
  var way = CloneChoice.Way.fork
  var forwardMicroseconds: UInt64 = 0
  var runMicroseconds: UInt64 = 0
  /// From the block's end until the thread wakes.
  var mergeMicroseconds: UInt64 = 0
  /// Of that, from when the result was here.
  var applyMicroseconds: UInt64 = 0
  /// From the call until the thread wakes, or its result was dropped.
  var totalMicroseconds: UInt64 = 0
  var bytesHome: UInt64 = 0

  var isMerged: Bool { outcome == .merged || outcome == .cameHomeEarly }
}

/// The one place where it is decided, call by call, whether to go, and where it is learnt what that took.
final class Decider {
  private static let profilePath = "/var/lib/snowflock/offload-profile"
  /// So many short calls at home, one after the other, and the program is left alone.
  private static let shortCallLimit = 64

  private let options: Options
  private let call: BlockCall
  private var controller = Controller()
  private var hasLearnt = false
  private var shortCalls = 0
  private var choice = CloneChoice()

  init(_ options: Options) {
    self.options = options
    call = BlockCall(
      BlockID(program: options.program[0], symbol: options.block), sizeHint: Self.sizeHint(options.program))
    guard options.mode != .never, let text = contents(of: Self.profilePath) else { return }
    controller = Controller(profile: text) ?? controller
  }

  /// How large the files are that the program's arguments name; nil: they name none. Programs mostly have the more to do
  /// the more there is in them.
  private static func sizeHint(_ program: [String]) -> UInt64? {
    var sum: UInt64 = 0
    for argument in program.dropFirst() {
      var status = stat()
      if stat(argument, &status) == 0, status.st_mode & S_IFMT == S_IFREG { sum += UInt64(status.st_size) }
    }
    return sum > 0 ? sum : nil
  }

  /// Whether the program is to run by itself: its calls are known, stay here, and are too short to be watched each time.
  func letsRunUnwatched() -> Bool {
    guard options.mode == .auto, controller.mayRunUnwatched(call) else { return false }
    hasLearnt = true
    return true
  }

  func decide(canGo: Bool) -> Decision {
    guard canGo else { return .home }
    switch options.mode {
    case .never: return .home
    case .always: return .away(limitMicroseconds: options.limitMicroseconds)
    case .auto:
      let now = monotonicMicroseconds()
      guard case .clone(let deadline) = controller.decide(call, nowUs: now) else { return .home }
      let limit = deadline > now ? deadline - now : 0
      return .away(limitMicroseconds: min(limit, options.limitMicroseconds ?? limit))
    }
  }

  /// Whether `learnHome` is to follow when a call has run at home.
  var measuresHome: Bool { options.mode == .auto }

  /// What is shorter than a fork is not worth two stops of the program each time.
  var leavesAlone: Bool { shortCalls >= Self.shortCallLimit }

  func learnHome(microseconds: UInt64) {
    hasLearnt = true
    shortCalls = Double(microseconds) < controller.limits.offloadUsMin ? shortCalls + 1 : 0
    controller.record(call, .home(us: Double(microseconds)))
  }

  /// Whether the clone of a call may be kept for the next.
  var mayKeep: Bool { options.clone != .fork && options.merge == .pages }

  /// Whether it is, after a call that left `state` behind.
  func keeps(cloneOf state: BlockState) -> Bool {
    mayKeep && (options.clone == .kept || (choice.keeps && !state.asksMore))
  }

  /// A call that went: of one that had to go there is as much to learn.
  func learn(_ measure: CallMeasure) {
    guard measure.outcome != .home else { return }
    let gain = measure.outcome == .merged ? measure.runMicroseconds : 0
    choice.record(measure.way, overheadUs: Double(measure.totalMicroseconds) - Double(gain))
    hasLearnt = true
    let times = OffloadTimes(
      forwardUs: Double(measure.forwardMicroseconds), runUs: Double(measure.runMicroseconds),
      mergeUs: Double(measure.applyMicroseconds), totalUs: Double(measure.totalMicroseconds),
      bytesHome: measure.bytesHome)
    switch measure.outcome {
    case .home: break
    case .merged: record(.returned(times))
    case .cameHomeEarly: record(.cameHomeEarly(times))
    case .gaveUp: record(.gaveUp(afterUs: times.totalUs))
    case .dropped, .conflict: record(.failed(afterUs: times.totalUs))
    }
  }

  /// What the user has had offloaded the controller does not pay for.
  private func record(_ outcome: CallOutcome) {
    controller.record(call, outcome, wasDecided: options.mode == .auto)
  }

  /// Whether a ticket is to be had before the next call comes: a clone that waits costs its host memory.
  var wantsTicketAhead: Bool {
    switch options.mode {
    case .never: return false
    case .always: return true
    case .auto: return controller.wouldOffload(call)
    }
  }

  /// For the program's next run. A profile that can not be written is only not there.
  func save() {
    guard hasLearnt else { return }
    for directory in ["/var", "/var/lib", "/var/lib/snowflock"] { mkdir(directory, 0o755) }
    let draft = Self.profilePath + ".\(getpid())"
    let fd = open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
    guard fd >= 0 else { return }
    let isWritten = writeAll(fd, controller.profile)
    close(fd)
    if !isWritten || rename(draft, Self.profilePath) != 0 { unlink(draft) }
  }
}
