import Glibc
import LinuxSystem

/// Small files of /proc, /sys and the like, for which an absent file is as good as an empty one.
enum ProcessFiles {
  /// The file's first bytes as text; empty if it cannot be read.
  static func text(_ path: String, maximumBytes: Int = 4096) -> String {
    guard let file = try? OwnedDescriptor.open(path, O_RDONLY) else { return "" }
    var bytes = [UInt8](repeating: 0, count: maximumBytes)
    let count = bytes.withUnsafeMutableBytes { try? file.read(into: $0) } ?? 0
    return String(decoding: bytes.prefix(count), as: UTF8.self)
  }

  static func firstLine(_ path: String) -> String {
    String(text(path).prefix { $0 != "\n" })
  }
}
