import Glibc
import LinuxSystem

/// The smallest guest that proves an accelerator: firmware of one page whose first instructions tell QEMU to exit.
package enum ProbeGuest {
  /// What the guest writes to the exit port; QEMU then ends with twice this plus one.
  private static let exitValue: UInt8 = 0x10
  private static let timeoutMilliseconds = 5000

  /// Nil: the guest ran to its end. Otherwise why not, for a sentence.
  package static func run(under accelerator: Accelerator) -> String? {
    let path = "/tmp/.snowfork-probe-\(getpid())"
    defer { unlink(path) }
    do {
      try writeFirmware(to: path)
      guard let status = try exitStatus(of: command(firmware: path, accelerator)) else {
        return "it did not end within \(timeoutMilliseconds / 1000) s"
      }
      return status == CInt(exitValue) << 1 | 1 ? nil : "QEMU ended with status \(status)"
    } catch {
      return "\(error)"
    }
  }

  private static func command(firmware: String, _ accelerator: Accelerator) -> [String] {
    [
      "qemu-system-x86_64", "-accel", accelerator.rawValue, "-machine", DomainDefinition.machineType,
      "-nodefaults", "-no-user-config", "-display", "none", "-m", "1", "-bios", firmware,
      "-device", "isa-debug-exit,iobase=0xf4,iosize=1",
    ]
  }

  private static func writeFirmware(to path: String) throws {
    let file = try OwnedDescriptor.open(path, O_WRONLY | O_CREAT | O_EXCL, mode: 0o600)
    let image = firmware
    try image.withUnsafeBytes { try file.writeFully($0) }
  }

  /// 64 KiB, all zero but for the reset vector at the end, where an x86 processor starts in real mode:
  /// `mov al, 0x10; out 0xf4, al; hlt; jmp $-1`.
  private static var firmware: [UInt8] {
    var image = [UInt8](repeating: 0, count: 65536)
    let code: [UInt8] = [0xB0, exitValue, 0xE6, 0xF4, 0xF4, 0xEB, 0xFD]
    image.replaceSubrange(65536 - 16..<65536 - 16 + code.count, with: code)
    return image
  }

  /// Runs a program with no input and output. Nil: it was ended because it took too long.
  private static func exitStatus(of arguments: [String]) throws(SystemError) -> CInt? {
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    for descriptor: CInt in 0...2 {
      posix_spawn_file_actions_addopen(&actions, descriptor, "/dev/null", O_RDWR, 0)
    }
    var argv = arguments.map { strdup($0) } + [nil]
    defer { argv.forEach { free($0) } }
    var pid: pid_t = 0
    let code = posix_spawnp(&pid, arguments[0], &actions, nil, &argv, environ)
    if code != 0 { throw SystemError("posix_spawn", subject: arguments[0], errno: code) }
    var status: CInt = 0
    for _ in 0..<timeoutMilliseconds / 5 {
      if try systemCall("waitpid", { waitpid(pid, &status, WNOHANG) }) == pid { return status >> 8 & 0xFF }
      usleep(5000)
    }
    kill(pid, SIGKILL)
    try systemCall("waitpid") { waitpid(pid, &status, 0) }
    return nil
  }
}
