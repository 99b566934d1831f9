import BenchSupport
import Foundation
import Glibc

/// A QEMU without snowfork: the machine that sfd makes, its RAM anonymous memory as QEMU has it by itself.
final class PeerMachine {
  let pid: pid_t
  let agentPath: String
  private let process = Process()
  private let monitorPath: String
  private var connectedMonitor: MonitorClient?

  enum Start {
    case boot(GuestImage)
    /// Waits for `migrate-incoming`.
    case incoming
    case loadvm(String)
  }

  /// Starts QEMU. A disk is a qcow2 file for the states of `savevm`; no device of the guest shows it.
  init(_ start: Start, _ size: GuestSize, disk: String? = nil, in workspace: Workspace) throws {
    let name = "\(workspace.root)/peer-\(UInt32.random(in: 0 ..< .max))"
    agentPath = "\(name).agent"
    monitorPath = "\(name).qmp"
    var arguments = Self.machine(ramMib: size.ramMib)
    arguments += ["-qmp", "unix:\(monitorPath),server=on,wait=off"]
    arguments += [
      "-chardev", "file,id=charserial0,path=/dev/null", "-device", "isa-serial,chardev=charserial0",
    ]
    arguments += ["-chardev", "socket,id=agent,path=\(agentPath),server=on,wait=off"]
    arguments += [
      "-device", "virtserialport,bus=virtio-serial0.0,nr=1,chardev=agent,name=org.snowfork.agent",
    ]
    if let disk { arguments += ["-drive", "if=none,id=state,format=qcow2,file=\(disk)"] }
    switch start {
    case .boot(let image):
      arguments += ["-kernel", image.kernel, "-initrd", image.initrd, "-append", image.commandLine]
    case .incoming: arguments += ["-incoming", "defer"]
    case .loadvm(let snapshot): arguments += ["-loadvm", snapshot]
    }
    process.executableURL = URL(fileURLWithPath: "/usr/bin/qemu-system-x86_64")
    process.arguments = arguments
    process.standardInput = FileHandle.nullDevice
    try process.run()
    pid = process.processIdentifier
  }

  func monitor() throws -> MonitorClient {
    if let connectedMonitor { return connectedMonitor }
    let monitor = try MonitorClient(path: monitorPath)
    connectedMonitor = monitor
    return monitor
  }

  /// Ends QEMU; its files are free on return.
  func end() {
    kill(pid, SIGKILL)
    process.waitUntilExit()
  }

  /// As `Sources/Hypervisor/Libvirt/DomainDefinition.swift` has it.
  private static func machine(ramMib: Int) -> [String] {
    [
      "-machine", "pc-i440fx-7.2,usb=off,vmport=off,dump-guest-core=off", "-accel", "tcg,tb-size=128",
      "-cpu", "Nehalem,rdrand=on", "-m", "\(ramMib)", "-smp", "1", "-device", "vmgenid,guid=auto",
      "-display", "none", "-no-user-config", "-nodefaults", "-rtc", "base=utc", "-no-hpet", "-no-shutdown",
      "-device", "virtio-serial-pci,id=virtio-serial0,bus=pci.0,addr=0x2", "-device", "pvpanic",
    ]
  }
}

/// What `images/build` made.
struct GuestImage {
  var directory: String
  var commandLine: String

  var kernel: String { "\(directory)/vmlinuz" }
  var initrd: String { "\(directory)/initrd" }

  init(directory: String) throws {
    struct Description: Decodable {
      var commandLine: String

      enum CodingKeys: String, CodingKey { case commandLine = "command_line" }
    }
    let data = try Data(contentsOf: URL(fileURLWithPath: "\(directory)/image.json"))
    self.directory = directory
    commandLine = try JSONDecoder().decode(Description.self, from: data).commandLine
  }
}
