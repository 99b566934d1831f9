import CGuest
import Glibc

/// What an init has to do before and beside the agent's own work, for images whose /init the agent is.
enum Init {
  /// Modules to load, one path a line, in order; written by images/build.
  static let moduleList = "/lib/snowflock/modules"

  static var isInit: Bool { getpid() == 1 }

  static func start() throws(SystemError) {
    mountAll()
    openConsole()
    loadModules()
    if let device = RootDisk.device { try RootDisk.enter(device) }
    cguest_set_interface_up("lo", 1)
    if let name = readText("/etc/hostname"), !isNamed { sethostname(name, name.utf8.count) }
    setEnvironment()
  }

  /// By `hostname=` on the kernel's command line.
  private static var isNamed: Bool {
    readText("/proc/sys/kernel/hostname") != "(none)"
  }

  private static func mountAll() {
    let hardened = UInt(MS_NOSUID | MS_NODEV | MS_NOEXEC)
    let mounts: [(source: String, target: String, type: String, flags: UInt, data: String)] = [
      ("proc", "/proc", "proc", hardened, ""),
      ("sysfs", "/sys", "sysfs", hardened, ""),
      ("devtmpfs", "/dev", "devtmpfs", UInt(MS_NOSUID), "mode=755"),
      ("devpts", "/dev/pts", "devpts", UInt(MS_NOSUID | MS_NOEXEC), "mode=620,ptmxmode=666"),
      ("tmpfs", "/dev/shm", "tmpfs", UInt(MS_NOSUID | MS_NODEV), "mode=1777"),
      ("tmpfs", "/run", "tmpfs", UInt(MS_NOSUID | MS_NODEV), "mode=755"),
      ("tmpfs", "/tmp", "tmpfs", UInt(MS_NOSUID | MS_NODEV), "mode=1777"),
    ]
    for (source, target, type, flags, data) in mounts {
      mkdir(target, 0o755)
      if Glibc.mount(source, target, type, flags, data) != 0 && errno != EBUSY {
        log("\(SystemError("mount \(target)"))")
      }
    }
    // Programs expect the usual links; devtmpfs makes only devices.
    for (link, target) in [
      ("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2"),
    ] {
      symlink(target, "/dev/\(link)")
    }
  }

  private static func openConsole() {
    let fd = open("/dev/console", O_RDWR | O_NOCTTY)
    guard fd >= 0 else { return }
    for standard in 0...2 as ClosedRange<Int32> { dup2(fd, standard) }
    if fd > 2 { close(fd) }
  }

  private static func loadModules() {
    guard let list = readText(moduleList) else { return }
    for path in list.split(separator: "\n") {
      let fd = open(String(path), O_RDONLY | O_CLOEXEC)
      let result = fd < 0 ? -errno : cguest_load_module(fd)
      if fd >= 0 { close(fd) }
      if result < 0 { log("\(SystemError("module \(path)", -result))") }
    }
  }

  private static func setEnvironment() {
    setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1)
    setenv("HOME", "/root", 1)
    setenv("TERM", "linux", 1)
    setenv("LANG", "C.UTF-8", 1)
    chdir("/root")
  }

  /// Ends every process, then the machine. A service leaves the machine's end to the guest's own init.
  static func powerOff() {
    sync()
    guard isInit else {
      kill(1, 38)  // SIGRTMIN+4: poweroff.target, to systemd
      return
    }
    kill(-1, SIGTERM)
    waitForChildren(milliseconds: 1000)
    kill(-1, SIGKILL)
    waitForChildren(milliseconds: 200)
    sync()
    reboot(RB_POWER_OFF)
  }

  private static func waitForChildren(milliseconds: Int) {
    let deadline = monotonicMicroseconds() + UInt64(milliseconds) * 1000
    while monotonicMicroseconds() < deadline {
      let pid = waitpid(-1, nil, WNOHANG)
      if pid < 0 && errno == ECHILD { return }
      if pid == 0 { usleep(5000) }
    }
  }
}
