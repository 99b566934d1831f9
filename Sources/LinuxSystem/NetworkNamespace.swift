import CLinux
import Glibc

/// A network namespace that is held open.
///
/// Namespaces with a name are those of `ip netns`: files in /run/netns, on which the namespace is mounted. A process
/// that has taken a mount namespace of its own (`ProcessSetup.hide`) makes and looks for them in the one it came from,
/// where they outlive it.
public struct NetworkNamespace: Sendable {
  public let descriptor: OwnedDescriptor

  private static let directory = "/run/netns"

  /// The calling thread's.
  public static func current() throws(SystemError) -> NetworkNamespace {
    try NetworkNamespace(path: "/proc/thread-self/ns/net")
  }

  /// What is bound to the file `path`.
  public init(path: String) throws(SystemError) {
    descriptor = try OwnedDescriptor.open(path, O_RDONLY)
  }

  /// The one of that name; nil: there is none. What is left of one whose namespace has gone is none either.
  public init?(named name: String) throws {
    let file: OwnedDescriptor? = try onThread {
      try enterOuterMounts()
      do {
        return try OwnedDescriptor.open("\(Self.directory)/\(name)", O_RDONLY)
      } catch let error as SystemError where error.errno == ENOENT { return nil }
    }
    guard let file else { return nil }
    // Else it is the bare file, on which nothing is mounted.
    guard try systemCall("fstatfs", subject: name, { clinux_is_namespace(file.raw) }) == 1 else { return nil }
    descriptor = file
  }

  /// A number that no other living namespace has.
  public var number: UInt64 {
    get throws(SystemError) {
      var status = stat()
      try systemCall("fstat") { fstat(descriptor.raw, &status) }
      return UInt64(status.st_ino)
    }
  }

  /// Runs `body` on a thread in the namespace and waits for its end. Sockets and taps opened there belong to the
  /// namespace wherever they are used later; so does /proc/sys/net.
  public func run<T: Sendable>(_ body: @escaping @Sendable () throws -> T) throws -> T {
    try onThread {
      try systemCall("setns", subject: "a network namespace") { clinux_enter_network(descriptor.raw) }
      return try body()
    }
  }

  /// Makes an empty one, with a name that lasts until `remove` or the machine's restart. EEXIST: the name is taken.
  public static func make(named name: String) throws -> NetworkNamespace {
    try onThread {
      let path = "\(directory)/\(name)"
      try enterOuterMounts()
      if mkdir(directory, 0o755) != 0, errno != EEXIST {
        throw SystemError("mkdir", subject: directory, errno: errno)
      }
      _ = try OwnedDescriptor.open(path, O_RDONLY | O_CREAT | O_EXCL, mode: 0o444)
      do {
        try systemCall("unshare(CLONE_NEWNET)") { clinux_unshare_network() }
        try systemCall("mount", subject: path) {
          mount("/proc/thread-self/ns/net", path, nil, UInt(MS_BIND), nil)
        }
      } catch {
        unlink(path)
        throw error
      }
      return try current()
    }
  }

  /// Takes the name away. The namespace goes when no process and no descriptor is in it any more. No error if there
  /// is none of that name.
  public static func remove(named name: String) throws {
    try onThread {
      let path = "\(directory)/\(name)"
      try enterOuterMounts()
      if umount2(path, CInt(MNT_DETACH)) != 0, errno != EINVAL, errno != ENOENT {
        throw SystemError("umount2", subject: path, errno: errno)
      }
      if unlink(path) != 0, errno != ENOENT { throw SystemError("unlink", subject: path, errno: errno) }
    }
  }

  /// Names that begin with `prefix`.
  public static func names(prefix: String) throws -> [String] {
    try onThread {
      try enterOuterMounts()
      guard let stream = opendir(directory) else { return [] }
      defer { closedir(stream) }
      var names: [String] = []
      while let entry = readdir(stream) {
        let name = withUnsafePointer(to: &entry.pointee.d_name) {
          $0.withMemoryRebound(to: CChar.self, capacity: Int(NAME_MAX) + 1) { String(cString: $0) }
        }
        if name.hasPrefix(prefix) { names.append(name) }
      }
      return names.sorted()
    }
  }
}

private func enterOuterMounts() throws(SystemError) {
  guard let mounts = ProcessSetup.outerMounts else { return }
  try systemCall("unshare(CLONE_FS)") { clinux_unshare_directories() }
  try systemCall("setns", subject: "the mount namespace outside") { clinux_enter_mounts(mounts.raw) }
}

/// Runs `body` on a new thread, whose namespaces it may change, and waits for its end.
private func onThread<T: Sendable>(_ body: @escaping @Sendable () throws -> T) throws -> T {
  let outcome = Outcome<T>()
  try NamedThread("sf-namespace") { outcome.result = Result { try body() } }.join()
  return try outcome.result!.get()
}

/// Written by the thread, read after it was joined.
private final class Outcome<T>: @unchecked Sendable {
  var result: Result<T, any Error>?
}
