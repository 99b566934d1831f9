import BenchSupport
import Foundation
import Glibc

/// `virsh save` and `virsh restore`, by libvirt's embedded driver with a root of its own.
struct LibvirtPeer {
  let image: GuestImage
  let recorder: Recorder
  let workspace: Workspace

  func run(_ size: GuestSize, repetitions: Int) throws {
    say("peer libvirt: \(size.name)")
    let root = "\(workspace.root)/libvirt"
    let agentPath = "\(workspace.root)/peer.agent"
    let definition = "\(workspace.root)/peer.xml"
    let state = workspace.file("peer.save")
    try prepare(root: root)
    try domain(size, agentPath: agentPath).write(toFile: definition, atomically: true, encoding: .utf8)
    let virsh = try VirshSession(root: root)
    try virsh.run("create \(definition)")
    var agent = try AgentLink(path: agentPath)
    if size.inUseMib > 0 { try agent.execute(["sf-load", "fill", "\(size.inUseMib)"]) }
    var pauses: [Double] = []
    var restores: [Double] = []
    for _ in 0..<repetitions {
      try? FileManager.default.removeItem(atPath: state)
      let watch = Stopwatch()
      virsh.begin("save peer \(state)")
      try waitUntilSaved(state)
      pauses.append(watch.microseconds)
      try virsh.finish()
      let restore = Stopwatch()
      try virsh.run("restore \(state)")
      agent = try AgentLink(path: agentPath)
      restores.append(restore.microseconds)
    }
    try virsh.run("destroy peer")
    virsh.close()
    try? FileManager.default.removeItem(atPath: state)
    try recorder.record("virsh-save", "pause_us", size, pauses)
    try recorder.record("virsh-save", "restore_us", size, restores)
  }

  /// Returns when libvirt has marked the file as whole. The command returns much later, when QEMU's process has gone.
  private func waitUntilSaved(_ file: String) throws {
    let deadline = ContinuousClock.now + .seconds(120)
    while ContinuousClock.now < deadline {
      if let handle = FileHandle(forReadingAtPath: file), let mark = try handle.read(upToCount: 16),
        String(decoding: mark, as: UTF8.self) == "LibvirtQemudSave"
      {
        return
      }
      usleep(500)
    }
    throw BenchError("libvirt did not finish \(file)")
  }

  /// The settings of sfd's own libvirt, so that neither waits for a helper that the other does without.
  private func prepare(root: String) throws {
    for directory in ["etc", "log"] {
      try FileManager.default.createDirectory(
        atPath: "\(root)/\(directory)", withIntermediateDirectories: true)
    }
    try """
    user = "libvirt-qemu"
    group = "libvirt-qemu"
    security_driver = "none"
    remember_owner = 0
    namespaces = []
    cgroup_controllers = []
    stdio_handler = "file"

    """.write(toFile: "\(root)/etc/qemu.conf", atomically: true, encoding: .utf8)
  }

  /// The machine of `Sources/Hypervisor/Libvirt/DomainDefinition.swift`, its RAM anonymous memory.
  private func domain(_ size: GuestSize, agentPath: String) -> String {
    """
    <domain type='qemu'>
      <name>peer</name>
      <genid/>
      <memory unit='MiB'>\(size.ramMib)</memory>
      <vcpu>1</vcpu>
      <os>
        <type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type>
        <kernel>\(image.kernel)</kernel><initrd>\(image.initrd)</initrd><cmdline>\(image.commandLine)</cmdline>
      </os>
      <features><acpi/><apic/><vmport state='off'/><tcg><tb-cache unit='MiB'>128</tb-cache></tcg></features>
      <cpu mode='custom' match='exact' check='none'>
        <model fallback='forbid'>Nehalem</model><feature policy='require' name='rdrand'/>
      </cpu>
      <clock offset='utc'><timer name='hpet' present='no'/></clock>
      <on_poweroff>destroy</on_poweroff><on_reboot>destroy</on_reboot><on_crash>destroy</on_crash>
      <devices>
        <controller type='usb' model='none'/><controller type='virtio-serial' index='0'/>
        <serial type='null'><target port='0'/></serial>
        <channel type='unix'>
          <source mode='bind' path='\(agentPath)'/><target type='virtio' name='org.snowfork.agent'/>
        </channel>
        <memballoon model='none'/><panic model='isa'/>
      </devices>
    </domain>

    """
  }
}

/// One virsh that is asked again and again: connecting, which reads QEMU's capabilities, is not what is measured.
private final class VirshSession {
  private let process = Process()
  private let input = Pipe()
  private let answers = Pipe()
  private var commands = 0

  /// In its view nobody may open `/dev/kvm`: where KVM does not work, libvirt would ask QEMU about it at every start.
  init(root: String) throws {
    let cover = "\(root)/no-kvm"
    _ = FileManager.default.createFile(atPath: cover, contents: nil, attributes: [.posixPermissions: 0])
    process.executableURL = URL(fileURLWithPath: "/usr/bin/unshare")
    process.arguments = [
      "--mount", "--propagation", "slave", "sh", "-c",
      "[ ! -e /dev/kvm ] || mount --bind \"$0\" /dev/kvm; exec virsh --quiet --connect \"$1\"",
      cover, "qemu:///embed?root=\(root)",
    ]
    process.environment = ProcessInfo.processInfo.environment.merging(["LC_ALL": "C", "TERM": "dumb"]) { $1 }
    process.standardInput = input
    process.standardOutput = answers
    process.standardError = answers
    try process.run()
    try run("version")
  }

  /// Runs one command of virsh's own shell. Throws with what it said if it failed.
  func run(_ command: String) throws {
    begin(command)
    try finish()
  }

  func begin(_ command: String) {
    commands += 1
    // virsh may show what it reads: in that, the quotes are between.
    input.fileHandleForWriting.write(Data("\(command)\necho 'end-'of-\(commands)\n".utf8))
  }

  /// Returns when the command begun has ended.
  func finish() throws {
    var text = ""
    while !text.contains("end-of-\(commands)") {
      let data = answers.fileHandleForReading.availableData
      guard !data.isEmpty else { throw BenchError("virsh ended: \(text)") }
      text += String(decoding: data, as: UTF8.self)
    }
    guard !text.contains("error:") else { throw BenchError("virsh: \(text)") }
  }

  func close() {
    try? input.fileHandleForWriting.close()
    process.waitUntilExit()
  }
}
