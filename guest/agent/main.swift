// sf-agent: the guest's side of snowfork. As PID 1 it is also the guest's init.
import Glibc
import GuestWire

/// For a device that a driver has yet to bring.
func waitForPort(seconds: Int) -> String? {
  for _ in 0..<seconds * 100 {
    if let path = HostPort.find() { return path }
    usleep(10_000)
  }
  return nil
}

/// A page of ours that is mapped for the first time in a clone costs it a millisecond of kernel code to translate, and
/// so does the page that the kernel's clock is read from.
func mapAllPages() {
  _ = mlockall(Int32(MCL_CURRENT) | Int32(MCL_FUTURE))
  _ = monotonicMicroseconds()
}

signal(SIGPIPE, SIG_IGN)

do {
  if Init.isInit { try Init.start() }
  guard let path = waitForPort(seconds: 30) else {
    throw SystemError("no virtio-serial port \(HostPort.name)", ENODEV)
  }
  let loop = try EventLoop()
  let port = try HostPort(path: path, loop: loop)
  let agent = try Agent(loop: loop, port: port)
  mapAllPages()
  withExtendedLifetime(agent) { loop.run() }
} catch {
  log("\(error)")
  // An init that returns is a kernel panic, which the host sees as a crash with no reason; this line is the reason.
  if Init.isInit { Init.powerOff() }
  exit(1)
}
