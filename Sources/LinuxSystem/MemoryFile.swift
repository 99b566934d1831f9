import CLinux
import Glibc

/// A sparse file on tmpfs that holds pages: a guest's RAM or a snapshot's cache.
public struct MemoryFile: Sendable {
  public let descriptor: OwnedDescriptor

  public init(_ descriptor: OwnedDescriptor) { self.descriptor = descriptor }

  /// A new file of `bytes` zeros, no memory used yet. Replaces an old one. Only its owner may open it.
  public static func create(_ path: String, bytes: UInt64) throws(SystemError) -> MemoryFile {
    let file = try OwnedDescriptor.open(path, O_RDWR | O_CREAT | O_TRUNC, mode: 0o600)
    try systemCall("ftruncate", subject: path) { ftruncate(file.raw, off_t(bytes)) }
    return MemoryFile(file)
  }

  public static func open(_ path: String) throws(SystemError) -> MemoryFile {
    MemoryFile(try OwnedDescriptor.open(path, O_RDWR))
  }

  /// The same file, opened anew with an offset of its own. `flags`: O_RDONLY or O_RDWR.
  public func reopened(_ flags: CInt) throws(SystemError) -> MemoryFile {
    MemoryFile(try OwnedDescriptor.open("/proc/self/fd/\(descriptor.raw)", flags))
  }

  /// Whether it is a regular file on tmpfs: reading it can not block, nor wait for another machine or process.
  public var isOnTmpfs: Bool {
    var status = stat()
    guard fstat(descriptor.raw, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { return false }
    return liesOnTmpfs
  }

  /// Whether it lies on tmpfs, be it a file or a directory.
  public var liesOnTmpfs: Bool { clinux_is_tmpfs(descriptor.raw) == 1 }

  /// Device and inode: equal for two descriptors of one file.
  public func identity() throws(SystemError) -> (device: UInt64, inode: UInt64) {
    var status = stat()
    try systemCall("fstat") { fstat(descriptor.raw, &status) }
    return (UInt64(status.st_dev), UInt64(status.st_ino))
  }

  /// Bytes of memory the file takes.
  public func allocatedBytes() throws(SystemError) -> UInt64 {
    var status = stat()
    try systemCall("fstat") { fstat(descriptor.raw, &status) }
    return UInt64(status.st_blocks) * 512
  }

  /// Fills the buffer from `offset`; holes read as zeros and stay holes. Past the end of the file: EIO.
  public func read(
    at offset: UInt64, into buffer: UnsafeMutableRawPointer, count: Int
  ) throws(SystemError) {
    var done = 0
    while done < count {
      let got = try systemCall("pread") {
        pread(descriptor.raw, buffer + done, count - done, off_t(offset) + off_t(done))
      }
      if got == 0 { throw SystemError("pread", subject: "a memory file shorter than its VM", errno: EIO) }
      done += got
    }
  }

  /// Writes from the buffer to `offset`. Returns how many bytes are there, less than `count` if memory ran out.
  public func write(
    at offset: UInt64, from buffer: UnsafeRawPointer, count: Int
  ) throws(SystemError) -> Int {
    var done = 0
    while done < count {
      do {
        done += try systemCall("pwrite") {
          pwrite(descriptor.raw, buffer + done, count - done, off_t(offset) + off_t(done))
        }
      } catch  where error.errno == ENOSPC || error.errno == ENOMEM {
        return done
      }
    }
    return done
  }

  /// Gives the memory of these bytes back: they read as zeros.
  public func punchHole(at offset: UInt64, count: UInt64) throws(SystemError) {
    try systemCall("fallocate") { clinux_punch_hole(descriptor.raw, off_t(offset), off_t(count)) }
  }

  /// Takes memory for these bytes, which stay as they are: writing to them can not fail for lack of it. ENOSPC, ENOMEM.
  public func reserve(at offset: UInt64, count: UInt64) throws(SystemError) {
    let code = posix_fallocate(descriptor.raw, off_t(offset), off_t(count))
    if code != 0 { throw SystemError("posix_fallocate", errno: code) }
  }

  /// Calls `body` with each stretch of the file that has memory, in order, as byte offsets.
  public func forEachData(_ body: (Range<UInt64>) -> Void) throws(SystemError) {
    var offset: off_t = 0
    while true {
      do {
        offset = try systemCall("lseek(SEEK_DATA)") { clinux_seek_data(descriptor.raw, offset) }
      } catch  where error.errno == ENXIO {
        return
      }
      let end = try systemCall("lseek(SEEK_HOLE)") { clinux_seek_hole(descriptor.raw, offset) }
      body(UInt64(offset)..<UInt64(end))
      offset = end
    }
  }
}
