import CLibvirt

extension HypervisorError {
  /// The error that libvirt has kept for this thread since its last failed call.
  static func last(_ operation: String, machine: String? = nil) -> HypervisorError {
    guard let error = virGetLastError()?.pointee else {
      return HypervisorError(.failed, operation: operation, machine: machine, cause: "libvirt gave no reason")
    }
    let cause = error.message.map { String(cString: $0) } ?? "libvirt error \(error.code)"
    return HypervisorError(
      code(of: virErrorNumber(UInt32(error.code)), cause: cause), operation: operation, machine: machine,
      cause: cause)
  }

  private static func code(of number: virErrorNumber, cause: String) -> Code {
    switch number {
    case VIR_ERR_NO_DOMAIN: .notFound
    case VIR_ERR_DOM_EXIST: .nameTaken
    case VIR_ERR_NO_MEMORY: .outOfMemory
    case VIR_ERR_OPERATION_TIMEOUT: .timedOut
    case VIR_ERR_NO_CONNECT, VIR_ERR_INVALID_CONN, VIR_ERR_AUTH_FAILED, VIR_ERR_AUTH_UNAVAILABLE,
      VIR_ERR_ACCESS_DENIED:
      .unavailable
    default: outOfMemoryTexts.contains(where: cause.contains) ? .outOfMemory : .failed
    }
  }

  /// QEMU's end for want of memory reaches us only as the text it has written.
  private static let outOfMemoryTexts = [
    "Cannot allocate memory", "cannot set up guest memory", "No space left",
  ]
}
