import CLinux
import Glibc

/// A memfd: a file in memory without a name, gone with its last descriptor.
public enum AnonymousFile {
  public static func create(name: String) throws(SystemError) -> OwnedDescriptor {
    OwnedDescriptor(taking: try systemCall("memfd_create", subject: name) { clinux_memfd_create(name) })
  }

  /// A file that holds `bytes` and stands at its beginning.
  public static func create(name: String, holding bytes: [UInt8]) throws -> OwnedDescriptor {
    let file = try create(name: name)
    try bytes.withUnsafeBytes { try file.writeFully($0) }
    try systemCall("lseek") { lseek(file.raw, 0, SEEK_SET) }
    return file
  }

  /// All of it, from its beginning. Leaves the descriptor where it stands.
  public static func contents(_ file: OwnedDescriptor) throws -> [UInt8] {
    let again = try reopened(file)
    let size = try systemCall("lseek") { lseek(again.raw, 0, SEEK_END) }
    try systemCall("lseek") { lseek(again.raw, 0, SEEK_SET) }
    var bytes = [UInt8](repeating: 0, count: Int(size))
    let whole = try bytes.withUnsafeMutableBytes { try again.readFully(into: $0) }
    return whole ? bytes : []
  }

  /// The same file, standing at its beginning whatever others do with theirs.
  public static func reopened(_ file: OwnedDescriptor) throws -> OwnedDescriptor {
    try OwnedDescriptor.open("/proc/self/fd/\(file.raw)", O_RDWR)
  }
}
