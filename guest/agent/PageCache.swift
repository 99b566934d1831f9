import Glibc

enum PageCache {
  /// Gives up all page cache that is clean: what a clone needs of it, it reads from its disk. What was written and is not on
  /// the disk yet is written first, so that there is more of it.
  static func drop() throws(SystemError) {
    sync()
    let fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC)
    guard fd >= 0 else { throw SystemError("open /proc/sys/vm/drop_caches") }
    defer { close(fd) }
    guard writeAll(fd, Array("1\n".utf8)) else { throw SystemError("drop the page cache") }
  }
}
