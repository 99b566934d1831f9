import CLibvirt
import Glibc

/// The connection to libvirt, and the callbacks that bring its events.
///
/// It lives until the process ends: with the embedded driver a closed connection would shut the driver down under
/// the machines. libvirt's connections may be used by any thread.
final class LibvirtConnection: @unchecked Sendable {
  let pointer: virConnectPtr
  let mailboxes = MonitorMailboxes()
  /// Machines whose QEMU we have killed: to libvirt, if it notices by itself, that is a failure.
  let destroyed = MachineNames()
  let events: AsyncStream<MachineEvent>
  private let faults = DiskFaultFilter()
  private let eventsContinuation: AsyncStream<MachineEvent>.Continuation

  /// `log`: where libvirt may write its errors; nil: nowhere.
  init(uri: String, log: String?) throws(HypervisorError) {
    try EventLoop.start(log: log)
    guard let pointer = virConnectOpen(uri) else {
      var error = HypervisorError.last("connecting to \(uri)")
      error.code = .unavailable
      throw error
    }
    self.pointer = pointer
    (events, eventsContinuation) = AsyncStream.makeStream(of: MachineEvent.self)
    try registerCallbacks()
  }

  private func registerCallbacks() throws(HypervisorError) {
    // Never released, as the connection is never closed.
    let opaque = Unmanaged.passRetained(self).toOpaque()
    let lifecycle:
      @convention(c) (virConnectPtr?, virDomainPtr?, CInt, CInt, UnsafeMutableRawPointer?) -> CInt = {
        _, domain, event, detail, opaque in
        let connection = Unmanaged<LibvirtConnection>.fromOpaque(opaque!).takeUnretainedValue()
        connection.lifecycle(domain!, event: event, detail: detail)
        return 0
      }
    let lifecycleID = virConnectDomainEventRegisterAny(
      pointer, nil, CInt(VIR_DOMAIN_EVENT_ID_LIFECYCLE.rawValue),
      unsafeBitCast(lifecycle, to: virConnectDomainEventGenericCallback.self), opaque, nil)
    let monitorID = virConnectDomainQemuMonitorEventRegister(
      pointer, nil, nil,
      { _, domain, name, seconds, microseconds, details, opaque in
        let connection = Unmanaged<LibvirtConnection>.fromOpaque(opaque!).takeUnretainedValue()
        let (name, details) = (String(cString: name!), details.map { String(cString: $0) } ?? "")
        if name == "BLOCK_IO_ERROR" {
          connection.diskFailed(domain!, details)
        } else if let event = MonitorEvent(
          name: name, seconds: seconds, microseconds: microseconds, details: details)
        {
          connection.mailboxes.post(event, to: String(cString: virDomainGetName(domain)))
        }
      }, opaque, nil, 0)
    guard lifecycleID >= 0, monitorID >= 0 else { throw .last("registering for libvirt's events") }
  }

  func has(_ name: String) -> Bool {
    guard let pointer = virDomainLookupByName(pointer, name) else { return false }
    virDomainFree(pointer)
    return true
  }

  /// Returns when libvirt knows the machine no more, or why it does after so many seconds. libvirt may have noticed its
  /// end by itself: then it refuses, and has not taken its files away yet.
  func destroy(_ name: String, seconds: Int) -> HypervisorError? {
    var error: HypervisorError?
    for _ in 0..<seconds * 100 {
      guard let domain = virDomainLookupByName(pointer, name) else { return nil }
      defer { virDomainFree(domain) }
      if virDomainDestroy(domain) == 0 { return nil }
      error = .last("destroying", machine: name)
      usleep(10_000)
    }
    return error
  }

  private func diskFailed(_ domain: virDomainPtr, _ details: String) {
    let name = String(cString: virDomainGetName(domain))
    guard let fault = DiskFault(event: details), faults.passes(fault, of: name) else { return }
    eventsContinuation.yield(.diskFailed(name: name, fault))
  }

  private func lifecycle(_ domain: virDomainPtr, event: CInt, detail: CInt) {
    guard event == CInt(VIR_DOMAIN_EVENT_STOPPED.rawValue) else { return }
    let name = String(cString: virDomainGetName(domain))
    faults.forget(name)
    var now = timespec()
    clock_gettime(CLOCK_REALTIME, &now)
    mailboxes.post(MonitorEvent(ended: Int64(now.tv_sec) * 1_000_000 + Int64(now.tv_nsec) / 1000), to: name)
    let isDestroyed = destroyed.remove(name)
    let cause: MachineEvent.Cause =
      switch virDomainEventStoppedDetailType(UInt32(detail)) {
      case VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN: .shutdown
      case VIR_DOMAIN_EVENT_STOPPED_DESTROYED: .destroyed
      case VIR_DOMAIN_EVENT_STOPPED_CRASHED: .crashed
      default: .failed
      }
    eventsContinuation.yield(.ended(name: name, cause: isDestroyed ? .destroyed : cause))
  }
}
