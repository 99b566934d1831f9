/// What a call of this module failed of. `description` is what the user is told: `cannot do this: why. What to do.`
public struct NetworkError: Error, Sendable, CustomStringConvertible {
  public enum Code: String, Sendable {
    case invalid  // what was asked for makes no sense
    case notFound
    case inUse  // an address, a number or a port that somebody else has
    case exhausted  // no address or number is left
    case unsupported  // the kernel or a right is missing
    case failed
  }
  public var code: Code
  /// As after "cannot": `make the network of family dev`.
  public var operation: String
  public var cause: String
  /// A sentence; empty if there is nothing to do.
  public var remedy: String

  public init(_ code: Code, _ operation: String, cause: String, remedy: String = "") {
    self.code = code
    self.operation = operation
    self.cause = cause
    self.remedy = remedy
  }

  public var description: String { "cannot \(operation): \(cause).\(remedy.isEmpty ? "" : " \(remedy)")" }
}
