/// What is asked of the controller outside a call.
extension Controller {
  /// So many runs of a program in a row may go unwatched.
  static let unwatchedRunsMax = 7
  /// Calls that take longer at home are always watched, which is nothing beside them, µs.
  static let watchedUsMin = 60e6

  /// Whether such a call would go to a clone. It is not one.
  public func wouldOffload(_ call: BlockCall) -> Bool {
    guard let profile = blocks[call.block] else { return false }
    return deadlineUs(profile, BlockProfile.index(sizeHint: call.sizeHint)) != nil
  }

  /// Whether a run of the program may begin whose calls nobody sees: they are known, are to stay at home, and are so short
  /// that watching them is a part of it. True counts the run; after some of them one is to be watched again, for devices
  /// and inputs change. Nothing is learned of a run that was not watched.
  public mutating func mayRunUnwatched(_ call: BlockCall) -> Bool {
    let index = BlockProfile.index(sizeHint: call.sizeHint)
    guard var own = blocks[call.block]?.classes[index], let homeUs = own.homeUs, homeUs < Self.watchedUsMin,
      !wouldOffload(call)
    else { return false }
    own.unwatchedRuns = own.unwatchedRuns < Self.unwatchedRunsMax ? own.unwatchedRuns + 1 : 0
    blocks[call.block]!.classes[index] = own
    return own.unwatchedRuns > 0
  }
}
