/// What a call of the pager failed of. `description` is one sentence.
public struct MemtapError: Error, Sendable, Codable, CustomStringConvertible {
  public enum Code: String, Sendable, Codable {
    case unavailable  // the pager is not running, or went away in mid-call
    case notFound
    case outOfMemory
    case unsupported  // the kernel lacks something
    case state  // the call does not fit the VM's or snapshot's state
    case failed
  }
  public var code: Code
  public var operation: String
  public var subject: String
  public var cause: String

  public init(_ code: Code, operation: String, subject: String, cause: String) {
    self.code = code
    self.operation = operation
    self.subject = subject
    self.cause = cause
  }

  public var description: String { "\(operation) of \(subject): \(cause)" }
}
