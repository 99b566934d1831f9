import Foundation
import LinuxSystem

/// A host's bundle as a file: it holds a private key, so only its owner may read it.
enum BundleFile {
  static func write(_ data: Data, to path: String) throws {
    do {
      let file = try OwnedDescriptor.open(path, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o600)
      try data.withUnsafeBytes { try file.writeFully($0) }
    } catch {
      throw Failure("cannot write the bundle: \(error). Name another file with --bundle.")
    }
  }

  static func read(_ path: String) throws(Failure) -> Data {
    guard let data = FileManager.default.contents(atPath: path) else {
      throw Failure(
        "cannot read the bundle \(path): it is not there, or not readable. Name the file.", .usage)
    }
    return data
  }
}
