import CGuest
import Glibc
import GuestWire

/// What makes a clone someone else than its parent: random numbers, name, clock, address, and the files that tell.
///
/// A clone begins with no page in memory and, under TCG, no instruction translated: every path through the kernel
/// that it takes for the first time costs 1 to 10 ms. So what can be looked up or opened is, before the fork.
final class Identity {
  static let runDirectory = "/run/snowflock"
  static let hookDirectory = "/etc/snowflock/clone.d"
  private static let reseedTimeoutMilliseconds = 3000
  private static let hookTimeoutMilliseconds: Int32 = 10_000

  private let kernelLog: KernelLog
  private let random: Int32
  private let hasGenerationID: Bool
  private var files: Files?
  /// Lines of /etc/hosts: the family's, as long as the VM has a network.
  private var names = ""
  /// Nil: it has none.
  private var network: NetworkIdentity?

  /// What was looked up before the fork: the files by which a guest's programs can tell who their VM is, open for
  /// writing, and the hooks.
  private struct Files {
    var vmid: TextFile
    var ticket: TextFile
    var snapshot: TextFile
    var hostname: TextFile
    var hosts: TextFile
    var machineID: TextFile
    var bootID: TextFile
    /// The executables of clone.d, in the order of their names.
    var hooks: [String]

    init() throws(SystemError) {
      vmid = try TextFile("\(runDirectory)/vmid")
      ticket = try TextFile("\(runDirectory)/ticket")
      snapshot = try TextFile("\(runDirectory)/snapshot")
      hostname = try TextFile("/etc/hostname")
      hosts = try TextFile("/etc/hosts")
      machineID = try TextFile("/etc/machine-id")
      bootID = try TextFile(bootIDFile)
      hooks = namesIn(hookDirectory).map { "\(hookDirectory)/\($0)" }.filter { access($0, X_OK) == 0 }
    }
  }

  /// The VM is a parent, no clone, from here on.
  init() throws(SystemError) {
    kernelLog = try KernelLog()
    random = open("/dev/urandom", O_RDWR | O_CLOEXEC)
    guard random >= 0 else { throw SystemError("open /dev/urandom") }
    // A bound device shows as a link named after its ACPI instance beside the driver's own files.
    hasGenerationID = namesIn("/sys/bus/acpi/drivers/vmgenid").contains { $0.contains(":") }
    mkdir(Self.runDirectory, 0o755)
    try Self.coverBootID()
    try TextFile("\(Self.runDirectory)/vmid").replace("0\n")
  }

  private static let bootIDFile = "\(runDirectory)/boot_id"

  /// A fork copies the kernel's boot ID, by which programs tell whether two processes share a machine (UCX under MPICH
  /// does). So they read a file in its place, as in a container of systemd-nspawn.
  private static func coverBootID() throws(SystemError) {
    let kernels = "/proc/sys/kernel/random/boot_id"
    guard let own = readText(kernels) else { return }
    try TextFile(bootIDFile).replace(own + "\n")
    guard mount(bootIDFile, kernels, nil, UInt(MS_BIND), nil) == 0 else {
      throw SystemError("cover \(kernels)")
    }
  }

  /// Another random number than the machine-id, in the form of a UUID.
  private static func bootID(_ machineID: [UInt8]) -> String {
    let digits = hexadecimal(machineID.reversed())
    var text = ""
    for (index, digit) in digits.enumerated() {
      if [8, 12, 16, 20].contains(index) { text += "-" }
      text.append(digit)
    }
    return text
  }

  /// The device VM's network. Answers why it could not be set up.
  func setUp(_ network: GuestMessage.Network, loop: EventLoop) -> String? {
    do {
      if self.network == nil { self.network = try NetworkIdentity(network, loop: loop) }
      names = network.names
      // The name that its image gave it is the device VM's too.
      var system = utsname()
      uname(&system)
      let own = "\(network.ipAddress.prefix { $0 != "/" }) \(text(system.nodename))\n"
      if !isKnown(own) { names += own }
      try TextFile("/etc/hosts").replace(Self.hosts + names)
      return nil
    } catch {
      return "\(error)"
    }
  }

  private static let hosts = "127.0.0.1 localhost\n::1 localhost\n"

  /// To be called before a fork: from here on the kernel's word that it reseeded is waited for.
  func prepare() throws(SystemError) {
    try kernelLog.skipToEnd()
    files = try Files()
    network?.prepare()
  }

  /// The fork was another's: this VM goes on as who it was.
  func goOn() { files = nil }

  /// Takes the identity whole, or says why not; a VM that did not must not go on.
  ///
  /// The seed goes in first, so that no random number after this call is the parent's even for the time until the
  /// kernel has noticed the new VM generation ID; that it has noticed is awaited last, since it comes by itself.
  func take(_ identity: GuestMessage.Identity) -> String? {
    defer { files = nil }
    do {
      guard let files else { throw Refusal("no fork was prepared") }
      guard hasGenerationID else {
        throw Refusal("the kernel has no VM generation ID driver or the VM no such device")
      }
      try mix(seed: identity.seed)
      try setName(identity, files)
      try setClock(nanoseconds: identity.wallClockNanoseconds)
      if !identity.ipAddress.isEmpty {
        guard let network else { throw Refusal("an address was given, and the VM has no network") }
        try network.take(identity)
      }
      try files.ticket.replace(identity.ticket + "\n")
      try files.snapshot.replace(identity.snapshot + "\n")
      try files.vmid.replace("\(identity.vmid)\n")
      guard kernelLog.wait(for: KernelLog.reseedMessage, milliseconds: Self.reseedTimeoutMilliseconds)
      else { throw Refusal("the kernel did not reseed its random numbers for a new VM generation ID") }
      try run(files.hooks)
      return nil
    } catch {
      return "\(error)"
    }
  }

  struct Refusal: Error, CustomStringConvertible {
    var description: String
    init(_ description: String) { self.description = description }
  }

  private func mix(seed: [UInt8]) throws(SystemError) {
    let added = seed.withUnsafeBytes { cguest_add_entropy(random, $0.baseAddress!, $0.count) }
    guard added >= 0 else { throw SystemError("add entropy", -added) }
    let reseeded = cguest_reseed(random)
    guard reseeded >= 0 else { throw SystemError("reseed", -reseeded) }
  }

  private func setName(_ identity: GuestMessage.Identity, _ files: Files) throws {
    let name = identity.hostname
    guard !name.isEmpty, name.utf8.count <= 64,
      name.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F && $0 != UInt8(ascii: "/") })
    else { throw Refusal("\"\(name)\" is no host name") }
    guard sethostname(name, name.utf8.count) == 0 else { throw SystemError("sethostname") }
    try files.hostname.replace(name + "\n")
    if identity.ipAddress.isEmpty {
      try files.hosts.replace("127.0.0.1 localhost\n127.0.1.1 \(name)\n::1 localhost\n")
    } else if let address = identity.ipAddress.split(separator: "/").first {
      let line = "\(address) \(name)\n"
      if !isKnown(line) { try files.hosts.replace(Self.hosts + names + line) }
    }
    try files.machineID.replace(Self.hexadecimal(identity.machineID) + "\n")
    try files.bootID.replace(Self.bootID(identity.machineID) + "\n")
  }

  /// By bytes: the generic search of strings is slow in a new clone.
  private func isKnown(_ line: String) -> Bool {
    let (all, line) = (Array((Self.hosts + names).utf8), Array(("\n" + line).utf8))
    return cguest_contains(all, all.count, line, line.count) != 0
  }

  private func setClock(nanoseconds: UInt64) throws(SystemError) {
    var time = timespec(
      tv_sec: Int(nanoseconds / 1_000_000_000), tv_nsec: Int(nanoseconds % 1_000_000_000))
    guard clock_settime(CLOCK_REALTIME, &time) == 0 else { throw SystemError("clock_settime") }
  }

  /// One after the other. The first that fails ends it.
  private func run(_ hooks: [String]) throws {
    for path in hooks {
      let pid = try Process.spawn([path], standard: (-1, 2, 2))
      guard let status = Process.wait(for: pid, milliseconds: Self.hookTimeoutMilliseconds) else {
        kill(-pid, SIGKILL)
        throw Refusal("\(path) took over \(Self.hookTimeoutMilliseconds / 1000) s")
      }
      guard status == 0 else { throw Refusal("\(path) ended with status \(status)") }
    }
  }

  private static func hexadecimal(_ bytes: [UInt8]) -> String {
    let digits = Array("0123456789abcdef".utf8)
    return String(
      decoding: bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
  }
}
