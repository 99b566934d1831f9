import Glibc

/// A file below /proc or /sys. Its size is not known before it was read, and a read may give less than there is.
public enum ProcFile {
  public static func text(_ path: String) throws -> String {
    let file = try OwnedDescriptor.open(path, O_RDONLY)
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 64 << 10)
    while true {
      let count = try chunk.withUnsafeMutableBytes { try file.read(into: $0) }
      if count == 0 { return String(decoding: bytes, as: UTF8.self) }
      bytes += chunk.prefix(count)
    }
  }
}
