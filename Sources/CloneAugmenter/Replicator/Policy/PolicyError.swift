/// Why a policy can not be used: `why. What to do.`
public struct PolicyError: Error, Equatable, Sendable, CustomStringConvertible {
  public var description: String

  init(_ description: String) { self.description = description }
}
