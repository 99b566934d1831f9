import Augmenter
import Glibc

/// The command line.
struct Options {
  enum Mode: String { case always, never, auto }
  enum Merge: String { case pages, words }
  enum Clone: String { case auto, fork, kept }

  var block = ""
  var mode = Mode.always
  var merge = Merge.pages
  var clone = Clone.auto
  var host = ""
  var report: String?
  var reportMark: String?
  /// The most that a call may be away, microseconds; nil: as long as it takes.
  var limitMicroseconds: UInt64?
  var isVerbose = false
  var program: [String] = []
  var faults = FaultPlan.none

  static let help = """
    Usage: sf-offload --block SYMBOL [OPTION]... -- PROGRAM [ARGUMENT]...
    Runs PROGRAM, and each call of its function SYMBOL in a clone of this virtual machine.

      --block SYMBOL      a function of PROGRAM or of a library it uses, or what it gives to cc_start()
      --mode MODE         always (the default), never, or auto: where it has paid
      --merge HOW         pages (the default), or words: for programs with threads
      --clone HOW         fork (one for each call), kept (one for all calls, to which goes what the program has changed
                          since the last; not with --merge words), or auto (the default): what costs less
      --host HOST         where clones are made; the daemon chooses if it is not given
      --limit SECONDS     how long a call may be away before it runs here instead
      --report FILE       writes counts and times, as JSON, when PROGRAM has ended
      --report-mark TEXT  writes them to standard error, in a line that begins with TEXT
      --verbose           says on standard error why a call ran here after all

    The exit status is PROGRAM's own, 128 + the signal that ended it, 127 if there is no such program; 2 if this
    command line is wrong.
    Example: sf-offload --block encode -- ./player song.wav

    """

  struct Wrong: Error { var reason: String }

  init(_ arguments: [String]) throws(Wrong) {
    var rest = arguments[...]
    while let name = rest.popFirst() {
      if name == "--" { break }
      guard name.hasPrefix("-") else {
        rest = [name] + rest
        break
      }
      if name == "--verbose" {
        isVerbose = true
        continue
      }
      guard let value = rest.popFirst() else { throw Wrong(reason: "\(name) needs a value") }
      try set(name, value)
    }
    program = Array(rest)
    if block.isEmpty { throw Wrong(reason: "--block is missing") }
    if program.isEmpty { throw Wrong(reason: "there is no program") }
    if let text = getenv("SF_OFFLOAD_FAULT") {
      guard let faults = FaultPlan(String(cString: text)) else {
        throw Wrong(reason: "SF_OFFLOAD_FAULT names no step")
      }
      self.faults = faults
    }
  }

  private mutating func set(_ name: String, _ value: String) throws(Wrong) {
    switch name {
    case "--block": block = value
    case "--mode":
      guard let mode = Mode(rawValue: value) else { throw Wrong(reason: "--mode is always, never or auto") }
      self.mode = mode
    case "--merge":
      guard let merge = Merge(rawValue: value) else { throw Wrong(reason: "--merge is pages or words") }
      self.merge = merge
    case "--clone":
      guard let clone = Clone(rawValue: value) else { throw Wrong(reason: "--clone is auto, fork or kept") }
      self.clone = clone
    case "--host": host = value
    case "--limit":
      guard let seconds = Double(value), seconds > 0, seconds < 1e9 else {
        throw Wrong(reason: "--limit is a number of seconds")
      }
      limitMicroseconds = UInt64(seconds * 1e6)
    case "--report": report = value
    case "--report-mark": reportMark = value
    default: throw Wrong(reason: "\(name) is not known")
    }
  }
}
