import Dispatch
import Glibc
import LinuxSystem

extension LibvirtHypervisor {
  private static let loadTimeoutSeconds = 30

  // A slot waits in QEMU's state `inmigrate`, with `cont` given when it was started: QEMU runs the virtual CPUs by
  // itself when the device state has been loaded, and libvirt follows by its RESUME event.
  public func activate(_ name: String, deviceState: CInt) throws(HypervisorError) -> ActivateTimes {
    let began = DispatchTime.now()
    let operation = "activating"
    let domain = try Domain(name, of: connection, operation: operation)
    let mailbox = try openMailbox(of: domain, operation: operation)
    defer { connection.mailboxes.close(name) }
    let ownOffset: OwnedDescriptor
    do {
      ownOffset = try reopen(deviceState)
    } catch {
      throw HypervisorError(.failed, operation: operation, machine: name, cause: error.description)
    }
    try domain.command(
      #"{"execute":"getfd","arguments":{"fdname":"snowfork"}}"#, descriptor: ownOffset.raw,
      operation: operation)
    do {
      try domain.command(
        #"{"execute":"migrate-incoming","arguments":{"uri":"fd:snowfork"}}"#, operation: operation)
    } catch {
      // A QEMU that refuses the state ends itself, at times before it has answered.
      try awaitLoaded(domain, mailbox, within: 2, operation: operation)
      throw error
    }
    try awaitLoaded(domain, mailbox, within: Self.loadTimeoutSeconds, operation: operation)
    let total = DispatchTime.now().uptimeNanoseconds - began.uptimeNanoseconds
    return ActivateTimes(totalMicroseconds: total / 1000)
  }

  private func awaitLoaded(
    _ domain: Domain, _ mailbox: MonitorMailbox, within seconds: Int, operation: String
  ) throws(HypervisorError) {
    let deadline = DispatchTime.now() + .seconds(seconds)
    var hasFailed = false
    while let event = mailbox.next(before: deadline) {
      switch event.kind {
      case .resumed: return
      // QEMU ends itself then, having written why.
      case .migration("failed"): hasFailed = true
      case .ended:
        let log = logTail(of: domain.name)
        throw HypervisorError(
          hasFailed || log.contains("load of migration failed") ? .incompatible : .failed,
          operation: operation, machine: domain.name,
          cause: "QEMU did not take the device state: \(log.isEmpty ? "it ended without a word" : log)")
      case .stopped, .migration: break
      }
    }
    throw HypervisorError(
      .timedOut, operation: operation, machine: domain.name,
      cause: "it did not run within \(seconds) s of getting its device state")
  }

  /// The same file at the same offset, with an offset of its own: clones are activated side by side.
  private func reopen(_ descriptor: CInt) throws(SystemError) -> OwnedDescriptor {
    let offset = try systemCall("lseek") { lseek(descriptor, 0, SEEK_CUR) }
    let reopened = try OwnedDescriptor.open("/proc/self/fd/\(descriptor)", O_RDONLY)
    try systemCall("lseek") { lseek(reopened.raw, offset, SEEK_SET) }
    return reopened
  }
}
