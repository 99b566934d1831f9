/// A computation block: a symbol of a program, or what `cc_start` names.
public struct BlockID: Hashable, Sendable {
  /// The program's path, as it was started.
  public var program: String
  public var symbol: String

  public init(program: String, symbol: String) {
    self.program = program
    self.symbol = symbol
  }
}

/// One call of a block, as far as it is known before it runs.
public struct BlockCall: Hashable, Sendable {
  public var block: BlockID
  /// How much the call has to do, in any unit that grows with it: bytes of its input, or of the process. Calls whose
  /// hints lie within a factor of 2 are taken for alike. nil: nothing is known.
  public var sizeHint: UInt64?

  public init(_ block: BlockID, sizeHint: UInt64? = nil) {
    self.block = block
    self.sizeHint = sizeHint
  }
}

/// What is known of the way to the clone.
public struct CloneLink: Equatable, Sendable {
  public var roundTripUs: Double
  public var bytesPerSecond: Double

  /// nil unless the rate is above 0 and the round trip is not negative.
  public init?(roundTripUs: Double, bytesPerSecond: Double) {
    guard roundTripUs >= 0, roundTripUs.isFinite, bytesPerSecond > 0, bytesPerSecond.isFinite else {
      return nil
    }
    self.roundTripUs = roundTripUs
    self.bytesPerSecond = bytesPerSecond
  }

  /// How long these bytes are on their way, there and back once each.
  func transferUs(bytes: Double) -> Double { 2 * roundTripUs + bytes / bytesPerSecond * 1e6 }
}

/// Where a call is to run.
public enum Placement: Equatable, Sendable {
  case home
  /// In a clone, if its result is whole at home by this time, on the clock of the `now` given. If it is not, the result
  /// is to be dropped and the call to be run at home. What is merged after that time is expected and paid for.
  case clone(deadlineUs: UInt64)
}

/// What came of a call. Times are in µs.
public enum CallOutcome: Equatable, Sendable {
  /// It ran at home, by decision or after an offload that brought nothing.
  case home(us: Double)
  case returned(OffloadTimes)
  /// The clone came home before the end of the block, for a system call that must happen here. The rest of the call
  /// is not recorded.
  case cameHomeEarly(OffloadTimes)
  /// Nothing came by the deadline, after this time. A record of `.home` follows.
  case gaveUp(afterUs: Double)
  /// No clone was had, or it was lost, or its result was dropped, after this time. A record of `.home` follows.
  case failed(afterUs: Double)

  /// No time is negative, endless or no number.
  var isPossible: Bool {
    let times: [Double]
    switch self {
    case .home(let us), .gaveUp(let us), .failed(let us): times = [us]
    case .returned(let offload), .cameHomeEarly(let offload):
      times = [offload.forwardUs, offload.runUs, offload.mergeUs, offload.totalUs]
    }
    return times.allSatisfy { $0 >= 0 && $0 < 1e15 }
  }
}

/// What an offload took, in µs and bytes.
public struct OffloadTimes: Equatable, Sendable {
  /// From the call's begin to its first instruction in the clone.
  public var forwardUs: Double
  /// From there to its return, in the clone.
  public var runUs: Double
  /// Writing the result, when it is whole, into the process.
  public var mergeUs: Double
  /// From the call's begin until the program goes on at home: all of the above, and the way home.
  public var totalUs: Double
  public var bytesOut: UInt64
  public var bytesHome: UInt64

  public init(
    forwardUs: Double, runUs: Double, mergeUs: Double, totalUs: Double, bytesOut: UInt64 = 0,
    bytesHome: UInt64 = 0
  ) {
    self.forwardUs = forwardUs
    self.runUs = runUs
    self.mergeUs = mergeUs
    self.totalUs = totalUs
    self.bytesOut = bytesOut
    self.bytesHome = bytesHome
  }
}

/// What the controller may cost, and how it explores.
public struct ControllerLimits: Equatable, Sendable {
  /// How much longer than at home all calls of a block may take, as a share of their time at home.
  public var overrun = 0.05
  /// What the first trials of a block may cost before anything is earned, in µs.
  public var trialUs = 5e6
  /// No offload takes less than this, in µs: shorter calls are not tried.
  public var offloadUsMin = 20e3

  public init() {}
}
