import Glibc

/// A system call that failed: which, on what, and the `errno` it left.
public struct SystemError: Error, Sendable, CustomStringConvertible {
  public var operation: String
  public var subject: String
  public var errno: CInt

  public init(_ operation: String, subject: String = "", errno: CInt) {
    self.operation = operation
    self.subject = subject
    self.errno = errno
  }

  /// `open of /dev/userfaultfd: Permission denied (13)`
  public var description: String {
    var buffer = [CChar](repeating: 0, count: 128)
    strerror_r(errno, &buffer, buffer.count)
    let text = buffer.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
    return "\(operation)\(subject.isEmpty ? "" : " of \(subject)"): \(text) (\(errno))"
  }
}

/// Makes a system call that answers -1 on failure, again after EINTR.
///
/// `errno` is read before anything else runs. EBADF and EFAULT are never the world's fault but ours: they trap.
@inlinable
@discardableResult
public func systemCall<Result: SignedInteger>(
  _ operation: StaticString, subject: @autoclosure () -> String = "", _ call: () -> Result
) throws(SystemError) -> Result {
  while true {
    let result = call()
    if result != -1 { return result }
    let code = errno
    if code == EINTR { continue }
    precondition(code != EBADF && code != EFAULT, "a bad descriptor or address was passed to a system call")
    throw SystemError("\(operation)", subject: subject(), errno: code)
  }
}
