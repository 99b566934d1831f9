import CGuest
import Glibc
import GuestWire

/// What makes a clone someone else than its parent: random numbers, name, clock, address, and the files that tell.
enum Identity {
  static let runDirectory = "/run/snowflock"
  static let hookDirectory = "/etc/snowflock/clone.d"
  private static let reseedTimeoutMilliseconds = 3000
  private static let hookTimeoutMilliseconds: Int32 = 10_000

  /// Who the agent's VM is before any fork.
  static func becomeParent() throws(SystemError) {
    mkdir(runDirectory, 0o755)
    try replaceFile("\(runDirectory)/vmid", "0\n")
  }

  /// Takes the identity whole, or says why not; a VM that did not must not go on.
  ///
  /// The seed goes in first, so that no random number after this call is the parent's even for the time until the
  /// kernel has noticed the new VM generation ID; that it has noticed is awaited last, since it comes by itself.
  static func take(_ identity: GuestMessage.Identity, kernelLog: KernelLog?) -> String? {
    do {
      guard let kernelLog else { throw Refusal("no fork was prepared") }
      guard hasGenerationID else {
        throw Refusal("the kernel has no VM generation ID driver or the VM no such device")
      }
      try mix(seed: identity.seed)
      try setName(identity)
      try setClock(nanoseconds: identity.wallClockNanoseconds)
      if !identity.macAddress.isEmpty || !identity.ipAddress.isEmpty {
        try NetworkIdentity.take(identity)
      }
      try replaceFile("\(runDirectory)/ticket", identity.ticket + "\n")
      try replaceFile("\(runDirectory)/snapshot", identity.snapshot + "\n")
      try replaceFile("\(runDirectory)/vmid", "\(identity.vmid)\n")
      guard kernelLog.wait(for: KernelLog.reseedMessage, milliseconds: reseedTimeoutMilliseconds) else {
        throw Refusal("the kernel did not reseed its random numbers for a new VM generation ID")
      }
      try runHooks()
      return nil
    } catch {
      return "\(error)"
    }
  }

  struct Refusal: Error, CustomStringConvertible {
    var description: String
    init(_ description: String) { self.description = description }
  }

  /// A bound device shows as a link named after its ACPI instance beside the driver's own files.
  private static var hasGenerationID: Bool {
    namesIn("/sys/bus/acpi/drivers/vmgenid").contains { $0.contains(":") }
  }

  private static func mix(seed: [UInt8]) throws(SystemError) {
    let fd = open("/dev/urandom", O_RDWR | O_CLOEXEC)
    guard fd >= 0 else { throw SystemError("open /dev/urandom") }
    defer { close(fd) }
    let added = seed.withUnsafeBytes { cguest_add_entropy(fd, $0.baseAddress!, $0.count) }
    guard added >= 0 else { throw SystemError("add entropy", -added) }
    let reseeded = cguest_reseed(fd)
    guard reseeded >= 0 else { throw SystemError("reseed", -reseeded) }
  }

  private static func setName(_ identity: GuestMessage.Identity) throws {
    let name = identity.hostname
    guard !name.isEmpty, name.utf8.count <= 64,
      name.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F && $0 != UInt8(ascii: "/") })
    else { throw Refusal("\"\(name)\" is no host name") }
    guard sethostname(name, name.utf8.count) == 0 else { throw SystemError("sethostname") }
    try replaceFile("/etc/hostname", name + "\n")
    var hosts = "127.0.0.1 localhost\n127.0.1.1 \(name)\n::1 localhost\n"
    if let address = identity.ipAddress.split(separator: "/").first { hosts += "\(address) \(name)\n" }
    try replaceFile("/etc/hosts", hosts)
    try replaceFile("/etc/machine-id", hexadecimal(identity.machineID) + "\n")
  }

  private static func setClock(nanoseconds: UInt64) throws(SystemError) {
    var time = timespec(
      tv_sec: Int(nanoseconds / 1_000_000_000), tv_nsec: Int(nanoseconds % 1_000_000_000))
    guard clock_settime(CLOCK_REALTIME, &time) == 0 else { throw SystemError("clock_settime") }
  }

  /// Each executable in the directory, in the order of names, one after the other. The first that fails ends it.
  private static func runHooks() throws {
    for name in namesIn(hookDirectory) {
      let path = "\(hookDirectory)/\(name)"
      guard access(path, X_OK) == 0 else { continue }
      let pid = try Process.spawn([path], standard: (-1, 2, 2))
      guard let status = Process.wait(for: pid, milliseconds: hookTimeoutMilliseconds) else {
        kill(-pid, SIGKILL)
        throw Refusal("\(path) took over \(hookTimeoutMilliseconds / 1000) s")
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
