/// What a hypervisor call failed of. `description` is one sentence for the user.
public struct HypervisorError: Error, Sendable, CustomStringConvertible {
  public enum Code: String, Sendable {
    case unavailable  // no driver, no permission
    case notFound
    case nameTaken
    case outOfMemory
    case incompatible  // the device state does not fit this QEMU or this slot
    case timedOut
    case failed
  }
  public var code: Code
  public var operation: String
  public var machine: String?
  public var cause: String

  public init(_ code: Code, operation: String, machine: String? = nil, cause: String) {
    self.code = code
    self.operation = operation
    self.machine = machine
    self.cause = cause
  }

  public var description: String {
    machine.map { "\(operation) of \($0): \(cause)" } ?? "\(operation): \(cause)"
  }
}
