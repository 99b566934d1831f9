/// Why bytes are no checkpoint, or not the one that is wanted. `description` is a sentence without its full stop.
public enum CheckpointError: Error, Sendable, Equatable, CustomStringConvertible {
  /// It is no checkpoint, or of another version.
  case format(String)
  /// It ends early, or sizes in it do not fit each other.
  case sizes(String)
  /// Bytes are not those that were written.
  case digest(String)
  /// It does not follow the checkpoint that is there.
  case base(held: UInt64, needed: UInt64)

  public var description: String {
    switch self {
    case .format(let what): "it is no checkpoint: \(what)"
    case .sizes(let what): "the checkpoint is malformed: \(what)"
    case .digest(let what): "the checkpoint is damaged: \(what) is not what was written"
    case let .base(held, needed): "it follows checkpoint \(needed), and \(held) is here"
    }
  }
}
