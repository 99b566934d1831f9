import CLinux
import Glibc

/// The pager's side of `ramshim_protocol.h`.
public enum ShimProtocol {
  public struct Hello: Sendable {
    public var pid: Int32
    public var token: String
    public var ramAddress: UInt64
    public var ramBytes: UInt64
    public var ram: OwnedDescriptor
    public var userfaultfd: OwnedDescriptor?
    /// The snapshot RAM is mapped on, and its cache file. Nil: RAM is the VM's own file.
    public var mapped: (snapshot: String, cache: OwnedDescriptor)?
  }

  public enum Command: Sendable {
    case openUserfaultfd
    /// `avoidsOverwrites`: pages that a device is about to fill whole are not fetched. `zeros`: runs of pages that are
    /// zeros for good.
    case mapCache(snapshot: String, cache: OwnedDescriptor, avoidsOverwrites: Bool, zeros: [Range<UInt32>])
  }

  /// Why a shim did not do as it was told.
  public struct Refusal: Error, Sendable, CustomStringConvertible {
    public var step: String
    public var errno: CInt
    /// The VM's RAM may be half remapped: it must be destroyed.
    public var isFatal: Bool
    public var description: String { SystemError("\(step) in QEMU", errno: errno).description }
  }

  /// Reads a hello that has arrived. Nil: it is not one, or not whole; close the connection.
  public static func readHello(_ socket: OwnedDescriptor) throws(SystemError) -> Hello? {
    var hello = ramshim_hello()
    let size = MemoryLayout<ramshim_hello>.size
    var descriptors: [OwnedDescriptor] = []
    var count = 0
    var failure: SystemError?
    withUnsafeMutableBytes(of: &hello) { bytes in
      do throws(SystemError) { (count, descriptors) = try UnixSocket.receive(socket, into: bytes) } catch {
        failure = error
      }
    }
    if let failure { throw failure }
    guard count == size, hello.magic == UInt32(RAMSHIM_MAGIC.rawValue),
      hello.version == UInt32(RAMSHIM_VERSION.rawValue), hello.ram_address % 4096 == 0
    else { return nil }
    let hasUserfaultfd = hello.flags & UInt32(RAMSHIM_HAS_UFFD.rawValue) != 0
    let isMapped = hello.flags & UInt32(RAMSHIM_IS_MAPPED.rawValue) != 0
    guard descriptors.count == 1 + (hasUserfaultfd ? 1 : 0) + (isMapped ? 1 : 0) else { return nil }
    let token = withUnsafeBytes(of: hello.token) { String(decoding: $0, as: UTF8.self) }
    let snapshot = withUnsafeBytes(of: hello.snapshot) {
      String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
    }
    return Hello(
      pid: Int32(bitPattern: hello.pid), token: token, ramAddress: hello.ram_address,
      ramBytes: hello.ram_bytes,
      ram: descriptors[0], userfaultfd: hasUserfaultfd ? descriptors[1] : nil,
      mapped: isMapped ? (snapshot, descriptors.last!) : nil)
  }

  /// Sends a command and waits for the userfaultfd that is its answer. EPIPE: the shim has gone.
  public static func request(
    _ command: Command, of socket: OwnedDescriptor, device: OwnedDescriptor
  ) throws -> OwnedDescriptor {
    var message = ramshim_command()
    message.uffd_features = Userfaultfd.neededFeatures
    var descriptors = [device]
    switch command {
    case .openUserfaultfd:
      message.kind = RAMSHIM_OPEN_UFFD.rawValue
    case let .mapCache(snapshot, cache, avoidsOverwrites, zeros):
      message.kind = RAMSHIM_MAP_CACHE.rawValue
      message.avoid = avoidsOverwrites ? 1 : 0
      precondition(snapshot.utf8.count < Int(RAMSHIM_SNAPSHOT_BYTES.rawValue), "snapshot ids are short")
      withUnsafeMutableBytes(of: &message.snapshot) { $0.copyBytes(from: snapshot.utf8) }
      message.run_count = UInt32(zeros.count)
      let bytes = zeros.map { ramshim_run(first: $0.lowerBound, count: UInt32($0.count)) }.withUnsafeBytes {
        Array($0)
      }
      descriptors += [cache, try AnonymousFile.create(name: "runs", holding: bytes)]
    }
    guard let userfaultfd = try exchange(message, descriptors, over: socket).descriptors.first else {
      throw SystemError("recvmsg", subject: "the RAM shim's answer", errno: EPROTO)
    }
    return userfaultfd
  }

  /// How many pages the shim mapped as zeros since it is a clone's, because a device was about to fill them whole.
  /// EPIPE: the shim has gone.
  public static func countOverwritten(of socket: OwnedDescriptor) throws -> UInt64 {
    var message = ramshim_command()
    message.kind = RAMSHIM_COUNT.rawValue
    return try exchange(message, [], over: socket).reply.pages_overwritten
  }

  private static func exchange(
    _ command: ramshim_command, _ descriptors: [OwnedDescriptor], over socket: OwnedDescriptor
  ) throws -> (reply: ramshim_reply, descriptors: [OwnedDescriptor]) {
    var message = command
    message.magic = UInt32(RAMSHIM_MAGIC.rawValue)
    try withExtendedLifetime(descriptors) {
      try withUnsafeBytes(of: message) {
        try UnixSocket.send(socket, $0, descriptors: descriptors.map(\.raw))
      }
    }

    var reply = ramshim_reply()
    let (count, received) = try withUnsafeMutableBytes(of: &reply) {
      try UnixSocket.receive(socket, into: $0)
    }
    guard count == MemoryLayout<ramshim_reply>.size, reply.magic == UInt32(RAMSHIM_MAGIC.rawValue) else {
      throw SystemError("recvmsg", subject: "the RAM shim's answer", errno: count == 0 ? EPIPE : EPROTO)
    }
    guard reply.error_number == 0 else {
      throw Refusal(
        step: name(ofStep: reply.step), errno: reply.error_number,
        isFatal: reply.step >= RAMSHIM_STEP_MAP.rawValue)
    }
    return (reply, received)
  }

  private static func name(ofStep step: UInt32) -> String {
    switch step {
    case RAMSHIM_STEP_UFFD.rawValue: "USERFAULTFD_IOC_NEW"
    case RAMSHIM_STEP_UFFD_API.rawValue: "UFFDIO_API"
    case RAMSHIM_STEP_MAP.rawValue: "mmap of the page cache"
    case RAMSHIM_STEP_REGISTER.rawValue: "UFFDIO_REGISTER"
    case RAMSHIM_STEP_PROTECT.rawValue: "mprotect"
    default: "a command"
    }
  }
}
