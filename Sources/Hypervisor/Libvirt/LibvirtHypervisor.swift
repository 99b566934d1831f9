import CLibvirt
import Glibc
import LinuxSystem

/// Machines as libvirt domains of QEMU.
///
/// With an embedded root (`qemu:///embed?root=DIR`) the driver runs inside this process, and running machines
/// outlive it: the next process to open the same root adopts them. With `qemu:///system` libvirtd runs them, and
/// its `qemu.conf` must name a tmpfs as `memory_backing_dir`.
public final class LibvirtHypervisor: Hypervisor {
  public let accelerator: AcceleratorChoice
  public let uri: String
  public let compatibility: String
  public var events: AsyncStream<MachineEvent> { connection.events }

  let connection: LibvirtConnection
  /// Machines that have ended and that libvirt has not let go of yet: their names are not free.
  private let ending = MachineNames()
  let runDirectory: String
  private let logDirectory: String

  /// The URI of the embedded driver with its files below `root`, an absolute path.
  public static func embeddedURI(root: String) -> String { "qemu:///embed?root=\(root)" }

  /// Connects, and adopts what runs. Guest RAM will be files below `memoryDirectory`, a tmpfs; only the embedded
  /// driver is configured so, a libvirtd must have been. One for each process and URI.
  ///
  /// Machines that `isWanted` denies are ended before the embedded driver hears of them: what a process that was killed
  /// while it started them has left can not be ended through libvirt any more.
  public init(
    uri: String, memoryDirectory: String, accelerator: AcceleratorChoice,
    isWanted: (_ name: String) -> Bool = { _ in true }
  ) throws(HypervisorError) {
    let root = EmbeddedRoot(uri: uri)
    try root?.prepare(memoryDirectory: memoryDirectory)
    root?.removeLeftovers(memoryDirectory: memoryDirectory, isWanted: isWanted)
    self.uri = uri
    self.accelerator = accelerator
    runDirectory = root.map { "\($0.path)/run/qemu" } ?? "/run/libvirt/qemu"
    logDirectory = root.map { "\($0.path)/log/qemu" } ?? "/var/log/libvirt/qemu"
    CPULimit.removeLeftovers(owner: runDirectory)
    if root != nil { try OrphanReaper.start() }
    connection = try LibvirtConnection(uri: uri, log: root.map { "\($0.path)/log/libvirt.log" })
    var version: UInt = 0
    guard virConnectGetVersion(connection.pointer, &version) == 0 else {
      throw .last("asking for QEMU's version")
    }
    let cpu =
      accelerator.accelerator == .kvm
      ? "host"
      : ([DomainDefinition.emulatedCPU] + DomainDefinition.emulatedCPUFeatures).joined(separator: "+")
    compatibility =
      "qemu-\(version / 1_000_000).\(version / 1000 % 1000).\(version % 1000) \(DomainDefinition.machineType) "
      + "\(cpu) \(accelerator.accelerator.rawValue)"
  }

  public func lowMemoryBytes(of memoryBytes: UInt64) -> UInt64 {
    DomainDefinition.lowMemoryBytes(of: memoryBytes)
  }

  public func start(_ spec: MachineSpec) throws(HypervisorError) -> MachineStatus {
    let operation = "starting"
    for _ in 0..<6000 where !isFree(spec.name) { usleep(10_000) }
    if !isFree(spec.name) {
      throw HypervisorError(
        .nameTaken, operation: operation, machine: spec.name,
        cause: "an ended machine of this name is still in the process table: process 1 does not collect it")
    }
    if connection.has(spec.name) {
      throw HypervisorError(
        .nameTaken, operation: operation, machine: spec.name, cause: "a machine of this name exists")
    }
    connection.destroyed.remove(spec.name)
    let xml = DomainDefinition(spec, accelerator: accelerator.accelerator, fileEngine: .here).xml
    let hasBacking = spec.disks.contains { $0.backing != nil }
    let flags =
      spec.role == .slot || hasBacking ? VIR_DOMAIN_START_PAUSED.rawValue : VIR_DOMAIN_NONE.rawValue
    guard let pointer = virDomainCreateXML(connection.pointer, xml, flags) else {
      let error = HypervisorError.last(operation, machine: spec.name)
      removeLog(of: spec.name)
      throw error
    }
    let domain = Domain(taking: pointer)
    do throws(HypervisorError) {
      try domain.prepareForMigration(operation: operation)
      try back(spec.disks, of: domain, operation: operation)
      // QEMU keeps this in mind until the device state is there; libvirt goes on showing a paused domain.
      if spec.role == .slot {
        try domain.command(#"{"execute":"cont"}"#, operation: operation)
      } else if hasBacking, virDomainResume(domain.pointer) != 0 {
        let error: HypervisorError = .last(operation, machine: spec.name)
        throw error
      }
    } catch {
      try? destroy(spec.name)
      throw error
    }
    return status(of: domain, role: spec.role)
  }

  public func isFree(_ name: String) -> Bool { !ending.contains(name) }

  public func machines() throws(HypervisorError) -> [MachineStatus] {
    var list: UnsafeMutablePointer<virDomainPtr?>?
    let count = virConnectListAllDomains(connection.pointer, &list, 0)
    guard count >= 0, let list else { throw .last("listing machines") }
    defer { free(list) }
    return (0..<Int(count)).compactMap { index in
      let domain = Domain(taking: list[index]!)
      return domain.role.map { status(of: domain, role: $0) }
    }
  }

  public func requestShutdown(_ name: String) throws(HypervisorError) {
    let operation = "shutting down"
    let domain = try Domain(name, of: connection, operation: operation)
    guard virDomainShutdown(domain.pointer) == 0 else { throw .last(operation, machine: name) }
  }

  public func destroy(_ name: String) throws(HypervisorError) {
    defer {
      removeLog(of: name)
      cpuLimit(of: name).remove()
    }
    guard connection.has(name) else { return }
    connection.destroyed.insert(name)
    guard killNow(name) else {
      if let error = connection.destroy(name, seconds: 10) { throw error }
      return
    }
    // Its QEMU was started by a process that has died, and is process 1's to collect: libvirt waits for that, seconds
    // or more, but the machine has ended now.
    let (connection, ending, limit) = (connection, ending, cpuLimit(of: name))
    ending.insert(name)
    try? NamedThread("vm-destroy") {
      while connection.destroy(name, seconds: 30) != nil {}
      limit.remove()
      ending.remove(name)
    }.detach()
  }

  /// The last lines that a machine's QEMU has written, for an error's cause. Empty if there are none.
  func logTail(of name: String) -> String {
    guard let file = try? OwnedDescriptor.open("\(logDirectory)/\(name).log", O_RDONLY),
      let size = try? file.size()
    else { return "" }
    var bytes = [UInt8](repeating: 0, count: Int(min(size, 4096)))
    let count = bytes.withUnsafeMutableBytes {
      pread(file.raw, $0.baseAddress, $0.count, off_t(size) - off_t($0.count))
    }
    return String(decoding: bytes.prefix(max(count, 0)), as: UTF8.self).split(separator: "\n")
      .filter { $0.contains("qemu-system") && !$0.contains("terminating on signal") }
      .suffix(3).joined(separator: "; ")
  }

  private func removeLog(of name: String) {
    if uri.hasPrefix("qemu:///embed") { unlink("\(logDirectory)/\(name).log") }
  }

  private func status(of domain: Domain, role: MachineSpec.Role) -> MachineStatus {
    MachineStatus(
      name: domain.name, uuid: domain.uuid, role: role, state: domain.state,
      pid: processID(of: domain.name))
  }

  /// libvirt asks with SIGTERM first and waits 10 s, which a QEMU whose virtual CPU waits in a page fault does not heed.
  /// True: it is no child of ours, so that we can not collect it.
  private func killNow(_ name: String) -> Bool {
    let pid = processID(of: name)
    guard pid > 0, ProcessFiles.firstLine("/proc/\(pid)/comm").hasPrefix("qemu") else { return false }
    kill(pid, SIGKILL)
    let status = ProcessFiles.text("/proc/\(pid)/status").split(separator: "\n")
    let parent = status.first { $0.hasPrefix("PPid:") }?.split(separator: "\t").last.flatMap { pid_t($0) }
    return parent.map { $0 != getpid() } ?? false
  }

  /// Waits until libvirt has let go of every machine that was ended, at most 30 s.
  public func settle() {
    for _ in 0..<3000 where !ending.isEmpty { usleep(10_000) }
  }

  /// From the file in which libvirt keeps it; 0 if there is none.
  func processID(of name: String) -> pid_t {
    pid_t(ProcessFiles.firstLine("\(runDirectory)/\(name).pid")) ?? 0
  }
}
