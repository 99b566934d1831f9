import Foundation
import Hypervisor
import LinuxSystem
import Synchronization

/// A real libvirt with its files in a directory of its own, for the tests of one process.
///
/// All calls are made on one thread, for which an unusable /dev/kvm is hidden as it is in sfd.
final class Lab: Sendable {
  let hypervisor: LibvirtHypervisor
  private let ends = Mutex<[String: MachineEvent.Cause]>([:])

  private static let thread = WorkerThreads(name: "lab", limit: 1)
  private static let directory = "/tmp/snowfork-hypervisor-tests-\(getpid())"
  private static let outcome = Mutex<Result<Lab, any Error>?>(nil)

  /// Runs `body` on the lab's thread, and fails the test that leaves a machine, process, file or cgroup behind.
  static func run(_ body: @escaping @Sendable (Lab) throws -> Void) async throws {
    try await thread.run {
      let lab = try outcome.withLock { outcome in
        if outcome == nil { outcome = Result { try Lab() } }
        return try outcome!.get()
      }
      defer {
        for machine in (try? lab.hypervisor.machines()) ?? [] { try? lab.hypervisor.destroy(machine.name) }
      }
      try body(lab)
      for machine in try lab.hypervisor.machines() { try lab.hypervisor.destroy(machine.name) }
      try lab.checkNothingIsLeft()
    }
  }

  private init() throws {
    mkdir(Self.directory, 0o755)
    if access(AcceleratorProbe.device, F_OK) == 0 { try ProcessSetup.hide(AcceleratorProbe.device) }
    let memory = "\(Self.directory)/memory"
    mkdir(memory, 0o755)
    try GuestMemoryMount.mount(memory)
    hypervisor = try LibvirtHypervisor(
      uri: LibvirtHypervisor.embeddedURI(root: "\(Self.directory)/libvirt"), memoryDirectory: memory,
      accelerator: AcceleratorChoice(accelerator: .tcg, reason: "tests"))
    _ = try OwnedDescriptor.open(diskPath, O_WRONLY | O_CREAT, mode: 0o644)
    try TinyGuest.write(to: "\(Self.directory)/guest")
    truncate(diskPath, 1 << 20)
    atexit { Lab.removeDirectory() }
    let events = hypervisor.events
    Task { [self] in
      for await case .ended(let name, let cause) in events { ends.withLock { $0[name] = cause } }
    }
  }

  /// With two virtual CPUs and a disk, so that a slot has their state to load as well.
  func spec(_ name: String, _ role: MachineSpec.Role) -> MachineSpec {
    MachineSpec(
      name: name, uuid: Self.randomUUID(), role: role, memoryBytes: TinyGuest.memoryBytes, vcpus: 2,
      kernelPath: "\(Self.directory)/guest", disks: [.init(path: diskPath, format: .raw, isReadOnly: true)],
      generationID: Self.randomUUID(),
      agentSocketPath: agentSocketPath(name), consoleLogPath: consolePath(name))
  }

  func agentSocketPath(_ name: String) -> String { "\(Self.directory)/\(name).agent" }
  func ramPath(_ name: String) -> String {
    ramDirectories.first { $0.hasSuffix("-\(name)") }.map { "\($0)/pc.ram" } ?? ""
  }

  /// What the guest has printed, without what its firmware has.
  func printed(by name: String) throws -> String {
    let file = try OwnedDescriptor.open(consolePath(name), O_RDONLY)
    return String(decoding: try AnonymousFile.contents(file), as: UTF8.self)
  }

  /// Waits until the guest has printed `count` letters more than now; gives all that it has printed.
  func waitForOutput(of name: String, more count: Int = 3) throws -> String {
    let before = try printed(by: name).utf8.count
    try wait(for: "output of \(name)") { try printed(by: name).utf8.count >= before + count }
    return try printed(by: name)
  }

  /// Of a machine whose name no other test uses: the events of those may still be on their way.
  func waitForEnd(of name: String) throws -> MachineEvent.Cause {
    try wait(for: "the end of \(name)") { ends.withLock { $0[name] } != nil }
    return ends.withLock { $0.removeValue(forKey: name)! }
  }

  /// Gives a slot the RAM that its parent has now.
  func copyRAM(from parent: String, to slot: String) throws {
    let source = try OwnedDescriptor.open(ramPath(parent), O_RDONLY)
    let destination = try OwnedDescriptor.open(ramPath(slot), O_RDWR)
    let bytes = try AnonymousFile.contents(source)
    try bytes.withUnsafeBytes { try destination.writeFully($0) }
  }

  private func checkNothingIsLeft() throws {
    let root = "\(Self.directory)/libvirt"
    let left =
      ramDirectories + Self.entries("\(root)/log/qemu")
      + Self.entries("\(root)/run/qemu").filter {
        ($0.hasSuffix(".pid") || $0.hasSuffix(".xml")) && !$0.hasSuffix("/driver.pid")
      }
      + Self.entries("\(root)/lib/qemu").filter { $0.contains("/domain-") }
      + Self.entries("/sys/fs/cgroup/cpu/snowfork") + Self.entries("/sys/fs/cgroup/snowfork")
    guard left.isEmpty else { throw LabError(text: "left behind: \(left)") }
  }

  private var diskPath: String { "\(Self.directory)/disk.raw" }
  private var ramDirectories: [String] { Self.entries("\(Self.directory)/memory/libvirt/qemu") }
  private func consolePath(_ name: String) -> String { "\(Self.directory)/\(name).console" }

  private func wait(for what: String, until condition: () throws -> Bool) throws {
    for _ in 0..<2000 {
      if try condition() { return }
      usleep(5000)
    }
    throw LabError(text: "waited 10 s in vain for \(what)")
  }

  private static func entries(_ directory: String) -> [String] {
    guard let stream = opendir(directory) else { return [] }
    defer { closedir(stream) }
    var found: [String] = []
    while let entry = readdir(stream) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if !name.hasPrefix("."), !name.hasPrefix("cgroup."), !name.hasPrefix("cpu."), name != "tasks",
        name != "notify_on_release"
      {
        found.append("\(directory)/\(name)")
      }
    }
    return found
  }

  private static func randomUUID() -> String {
    let digits = (0..<32).map { _ in "0123456789abcdef".randomElement()! }
    return [0..<8, 8..<12, 12..<16, 16..<20, 20..<32].map { String(digits[$0]) }.joined(separator: "-")
  }

  /// The tmpfs goes with the lab's mount namespace, at the end of the process.
  private static func removeDirectory() {
    try? FileManager.default.removeItem(atPath: directory)
  }
}

struct LabError: Error, CustomStringConvertible {
  var text: String
  var description: String { text }
}
