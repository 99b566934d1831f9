import FoundationEssentials
import Glibc
import GuestMemory
import LinuxSystem

/// The files of a snapshot: a directory on tmpfs, named by the snapshot's id, that outlives the pager.
///
///     pages          the page cache, sparse
///     states         a byte a page, and what became of the snapshot (`PageStates`)
///     manifest.json  what seldom changes (`SnapshotManifest`), replaced as a whole; the keys of its pages' way to other
///                    hosts too, hence 0600
///
/// A directory gets its name, and with it existence, by one rename at the commit.
enum SnapshotFiles {
  static func pages(_ directory: String) -> String { "\(directory)/pages" }
  static func states(_ directory: String) -> String { "\(directory)/states" }
  private static func manifest(_ directory: String) -> String { "\(directory)/manifest.json" }

  /// Makes directory and manifest; nothing if that fails. What an earlier pager left under that name is removed.
  static func create(_ directory: String, _ manifest: SnapshotManifest) throws(SystemError) {
    remove(directory)
    try systemCall("mkdir", subject: directory) { mkdir(directory, 0o700) }
    do { try replaceFile(Self.manifest(directory), with: encodeManifest(manifest)) } catch {
      remove(directory)
      throw error
    }
  }

  /// Replaces the manifest: after a crash it is the old or the new one.
  static func changeManifest(
    _ directory: String, _ change: (inout SnapshotManifest) -> Void
  ) throws(SystemError) {
    var manifest = try readManifest(directory)
    change(&manifest)
    try replaceFile(Self.manifest(directory), with: encodeManifest(manifest))
  }

  static func readManifest(_ directory: String) throws(SystemError) -> SnapshotManifest {
    try decode(Self.manifest(directory))
  }

  /// Not an error if there is nothing.
  static func remove(_ directory: String) {
    for name in (try? namesInDirectory(directory)) ?? [] { Glibc.unlink("\(directory)/\(name)") }
    rmdir(directory)
  }
}

struct SnapshotManifest: Codable {
  var originName: String
  /// The origin's token: its name may change.
  var originToken: String
  var base: String?
  var ramBytes: UInt64
  var sequence: UInt64
  /// When it came to this host, CLOCK_MONOTONIC nanoseconds.
  var since: UInt64?
  /// Its origin is on another host: all but its `existing`.
  var remote: RemoteSnapshot?
  /// Other hosts get its pages there.
  var served: PageOrigin?
  /// It is a standby: the checkpoint that its pages are of.
  var standby: StandbyMark?
}

/// What the pager keeps of a VM for its successor, in a file named by the token.
struct VMManifest: Codable {
  var name: String
  var token: String
  var ramBytes: UInt64
  /// The snapshot that its RAM is mapped on, or is about to be: the shim's hello tells which.
  var base: String?
  /// QEMU's process, once it has connected.
  var pid: Int32?
  var startTime: UInt64?
  var isForgotten = false

  func write(in directory: String) throws(SystemError) {
    try replaceFile("\(directory)/\(token).json", with: encodeManifest(self))
  }
  static func remove(token: String, in directory: String) { Glibc.unlink("\(directory)/\(token).json") }
  static func read(_ path: String) throws(SystemError) -> VMManifest { try decode(path) }
}

/// The names in a directory, without dots.
func namesInDirectory(_ path: String) throws(SystemError) -> [String] {
  guard let stream = opendir(path) else { throw SystemError("opendir", subject: path, errno: errno) }
  defer { closedir(stream) }
  var names: [String] = []
  while let entry = readdir(stream) {
    let name = withUnsafeBytes(of: &entry.pointee.d_name) {
      String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
    }
    if !name.hasPrefix(".") { names.append(name) }
  }
  return names
}

/// Replaces a small file as a whole: a reader, and whoever comes after a crash, sees the old or the new one.
func replaceFile(_ path: String, with bytes: [UInt8]) throws(SystemError) {
  let draft = "\(path).new"
  defer { Glibc.unlink(draft) }  // there only if something failed
  let file = try OwnedDescriptor.open(draft, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o600)
  var done = 0
  while done < bytes.count {
    done += try systemCall("write", subject: draft) {
      bytes.withUnsafeBytes { write(file.raw, $0.baseAddress! + done, bytes.count - done) }
    }
  }
  try systemCall("rename", subject: path) { rename(draft, path) }
}

private func encodeManifest(_ value: some Encodable) -> [UInt8] {
  // Structures of strings and numbers always encode.
  guard let data = try? JSONEncoder().encode(value) else { preconditionFailure("a manifest does not encode") }
  return Array(data)
}

private func decode<T: Decodable>(_ path: String) throws(SystemError) -> T {
  let text = try readTextFile(path)
  guard let value = try? JSONDecoder().decode(T.self, from: Data(text.utf8)) else {
    throw SystemError("read", subject: path, errno: EINVAL)
  }
  return value
}
