import Glibc

/// A file descriptor that is closed with its last reference.
public final class OwnedDescriptor: Sendable {
  /// Valid as long as this object lives: keep the object across the call that uses the number.
  public let raw: CInt

  /// Takes over `raw`; nobody else may close it.
  public init(taking raw: CInt) { self.raw = raw }

  deinit { close(raw) }

  /// Opens `path` with O_CLOEXEC added to `flags`.
  public static func open(
    _ path: String, _ flags: CInt, mode: mode_t = 0
  ) throws(SystemError) -> OwnedDescriptor {
    OwnedDescriptor(
      taking: try systemCall("open", subject: path) { Glibc.open(path, flags | O_CLOEXEC, mode) })
  }

  /// Another descriptor of the same open file.
  public func duplicate() throws(SystemError) -> OwnedDescriptor {
    OwnedDescriptor(taking: try systemCall("fcntl(F_DUPFD_CLOEXEC)") { fcntl(raw, F_DUPFD_CLOEXEC, 0) })
  }

  public func setNonBlocking() throws(SystemError) {
    let flags = try systemCall("fcntl(F_GETFL)") { fcntl(raw, F_GETFL) }
    try systemCall("fcntl(F_SETFL)") { fcntl(raw, F_SETFL, flags | O_NONBLOCK) }
  }

  /// Reads what there is, at most the buffer's size. 0: end of file.
  public func read(into buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> Int {
    try systemCall("read") { Glibc.read(raw, buffer.baseAddress, buffer.count) }
  }

  /// Reads until the buffer is full. False: the file or stream ended before its first byte.
  /// An end in the middle throws EPIPE.
  public func readFully(into buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> Bool {
    var done = 0
    while done < buffer.count {
      let count = try read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[done...]))
      if count == 0 {
        if done == 0 { return false }
        throw SystemError("read", subject: "a stream that ended early", errno: EPIPE)
      }
      done += count
    }
    return true
  }

  /// Writes the whole buffer. On a socket whose peer has gone: EPIPE, never SIGPIPE, if SIGPIPE is ignored
  /// (see `ignoreBrokenPipes`).
  public func writeFully(_ buffer: UnsafeRawBufferPointer) throws(SystemError) {
    var done = 0
    while done < buffer.count {
      done += try systemCall("write") {
        Glibc.write(raw, buffer.baseAddress! + done, buffer.count - done)
      }
    }
  }

  /// The length of the file in bytes.
  public func size() throws(SystemError) -> UInt64 {
    var status = stat()
    try systemCall("fstat") { fstat(raw, &status) }
    return UInt64(status.st_size)
  }
}

/// For the whole process: writing to a closed socket gives EPIPE instead of ending the process. Call it in `main`.
public func ignoreBrokenPipes() { signal(SIGPIPE, SIG_IGN) }
