/// Why a policy can not be used: `why. What to do.`
public struct PolicyError: Error, Equatable, Sendable, CustomStringConvertible {
  public var description: String
  /// Where in its file, from 1 on; nil: it came of no file, or of one that was not read.
  public var line: Int?

  init(_ description: String, line: Int? = nil) {
    self.description = description
    self.line = line
  }
}
