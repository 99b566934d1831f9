import CLibvirt
import Glibc
import LinuxSystem

/// libvirt's event loop of this process: monitors of embedded QEMU, timers and all callbacks run on it.
///
/// libvirt allows one implementation for each process, registered before the first connection, and it never ends.
enum EventLoop {
  static let threadName = "libvirt-events"

  /// Starts the loop's thread at the first use; later uses give the first one's outcome. libvirt's own errors, of
  /// which those of our calls reach us as well, are written to `log`, and its warnings nowhere.
  static func start(log: String?) throws(HypervisorError) {
    setenv("LIBVIRT_LOG_OUTPUTS", "4:file:\(log ?? "/dev/null")", 0)
    if let failure = started { throw failure }
  }

  private static let started: HypervisorError? = {
    // Errors are read where they are made; libvirt must not print them on stderr as well.
    virSetErrorFunc(nil) { _, _ in }
    guard virInitialize() == 0, virEventRegisterDefaultImpl() == 0 else {
      return .last("starting libvirt's event loop")
    }
    do {
      try NamedThread(threadName) {
        while true { virEventRunDefaultImpl() }
      }.detach()
      return nil
    } catch {
      return HypervisorError(.unavailable, operation: "starting libvirt's event loop", cause: "\(error)")
    }
  }()
}
