import CLinux
import Glibc

/// What the kernel said to a request that resolves faults: every answer a pager has to act on, named.
public enum UserfaultAnswer: Sendable, Equatable {
  case done
  /// A page of the range has a mapping already, or a write-protection marker.
  case exists
  /// The address space has ended.
  case processGone
  /// The range is not registered for this (any more).
  case notRegistered
  /// The mappings were changing: ask again.
  case again
  /// Something else, with its `errno`.
  case refused(CInt)

  init(_ result: CInt) {
    if result == 0 {
      self = .done
      return
    }
    switch errno {
    case EEXIST: self = .exists
    case ENOENT: self = .notRegistered
    case ESRCH: self = .processGone
    case EAGAIN, EINTR: self = .again
    case let code: self = .refused(code)
    }
  }
}

/// A page fault as the kernel reports it.
public struct Userfault: Sendable {
  /// Where, page-aligned.
  public var address: UInt64
  /// A write to a protected page that is there; otherwise the page is missing.
  public var isWriteProtect: Bool

  @inlinable
  init(address: UInt64, isWriteProtect: Bool) {
    self.address = address
    self.isWriteProtect = isWriteProtect
  }
}

/// A userfaultfd of another process. Its requests work from here as they would from there.
public struct Userfaultfd: Sendable {
  public let descriptor: OwnedDescriptor

  /// What the pager needs of the kernel; passed to the process that makes the userfaultfd.
  public static let neededFeatures: UInt64 =
    CLINUX_UFFD_PAGEFAULT_FLAG_WP | CLINUX_UFFD_MISSING_SHMEM | CLINUX_UFFD_WP_HUGETLBFS_SHMEM

  public enum Mode: UInt64, Sendable {
    case missing = 1
    case writeProtect = 2
    case both = 3
  }

  /// Takes what another process handed over. EPROTO: it is no userfaultfd.
  public init(handedOver descriptor: OwnedDescriptor) throws(SystemError) {
    var target = [CChar](repeating: 0, count: 64)
    let length = try systemCall("readlink") {
      readlink("/proc/self/fd/\(descriptor.raw)", &target, target.count - 1)
    }
    let name = String(decoding: target.prefix(length).map { UInt8(bitPattern: $0) }, as: UTF8.self)
    guard name == "anon_inode:[userfaultfd]" else {
      throw SystemError("recvmsg", subject: "a userfaultfd, got \(name)", errno: EPROTO)
    }
    self.descriptor = descriptor
  }

  /// The faults that wait, at most `limit`; 0: none. `buffer` has room for `limit` messages of 32 bytes.
  /// Nil: the address space has ended or this is no userfaultfd.
  @inlinable
  public func read(into buffer: UnsafeMutableRawPointer, limit: Int) -> Int? {
    let count = Glibc.read(descriptor.raw, buffer, limit * Self.messageBytes)
    if count >= 0 { return count / Self.messageBytes }
    return errno == EAGAIN || errno == EINTR ? 0 : nil
  }

  /// `struct uffd_msg` (linux/userfaultfd.h): event at 0, of a page fault its flags at 8 and address at 16.
  public static let messageBytes = 32

  /// The message at `index`; nil: not a page fault.
  @inlinable
  public static func fault(in buffer: UnsafeMutableRawPointer, at index: Int) -> Userfault? {
    let message = buffer + index * messageBytes
    guard message.load(as: UInt8.self) == 0x12 else { return nil }  // UFFD_EVENT_PAGEFAULT
    let flags = message.load(fromByteOffset: 8, as: UInt64.self)
    return Userfault(
      address: message.load(fromByteOffset: 16, as: UInt64.self) & ~4095,
      isWriteProtect: flags & 2 != 0)  // UFFD_PAGEFAULT_FLAG_WP
  }

  /// Sets which faults of the range are reported. May be called again with another mode.
  public func register(address: UInt64, length: UInt64, mode: Mode) throws(SystemError) {
    try systemCall("UFFDIO_REGISTER") {
      clinux_uffd_register(descriptor.raw, address, length, mode.rawValue)
    }
  }

  /// Reports nothing of the range any more, and lifts every protection of it. Who waits for a protected page is not woken.
  public func unregister(address: UInt64, length: UInt64) throws(SystemError) {
    try systemCall("UFFDIO_UNREGISTER") { clinux_uffd_unregister(descriptor.raw, address, length) }
  }

  /// Lets those who wait for a page of the range try again.
  public func wake(address: UInt64, length: UInt64) -> UserfaultAnswer {
    UserfaultAnswer(clinux_uffd_wake(descriptor.raw, address, length))
  }

  public func protect(address: UInt64, length: UInt64) -> UserfaultAnswer {
    UserfaultAnswer(clinux_uffd_write_protect(descriptor.raw, address, length, 1))
  }

  /// Lifts the protection of the range and lets its writers go on.
  public func lift(address: UInt64, length: UInt64) -> UserfaultAnswer {
    UserfaultAnswer(clinux_uffd_write_protect(descriptor.raw, address, length, 0))
  }

  /// Maps zeros and lets those who wait go on. `done`: the bytes up to the page that `answer` is about.
  public func mapZero(address: UInt64, length: UInt64) -> (answer: UserfaultAnswer, done: UInt64) {
    var done: UInt64 = 0
    let answer = UserfaultAnswer(clinux_uffd_zero(descriptor.raw, address, length, &done))
    return (answer, done)
  }
}
