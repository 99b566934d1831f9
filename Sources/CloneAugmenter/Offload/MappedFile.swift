import Glibc

/// A file to be read here and there. One that is cut meanwhile ends this process with SIGBUS: libraries are replaced by
/// others, not written.
final class MappedFile {
  let bytes: UnsafeRawBufferPointer

  /// Nil: it can not be read, or is empty.
  init?(_ path: String) {
    let fd = open(path, O_RDONLY | O_CLOEXEC)
    guard fd >= 0 else { return nil }
    defer { close(fd) }
    var status = stat()
    guard fstat(fd, &status) == 0, status.st_size > 0,
      let memory = mmap(nil, Int(status.st_size), PROT_READ, MAP_PRIVATE, fd, 0), memory != MAP_FAILED
    else { return nil }
    bytes = UnsafeRawBufferPointer(start: memory, count: Int(status.st_size))
  }

  deinit { munmap(UnsafeMutableRawPointer(mutating: bytes.baseAddress), bytes.count) }
}
