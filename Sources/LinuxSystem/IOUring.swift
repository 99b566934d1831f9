import CLinux

/// io_uring(7).
public enum IOUring {
  /// Whether this kernel has it (Linux 5.1) and this process may use it.
  public static var isAvailable: Bool { clinux_has_io_uring() == 1 }
}
