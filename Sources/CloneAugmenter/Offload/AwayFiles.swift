import Augmenter
import CTrace
import Glibc

/// Files of the program while it is away: which may be used, and what has become of them.
final class AwayFiles {
  private struct OpenFile: Equatable {
    var device: UInt64
    var inode: UInt64
    var flags: UInt32
    var offset: UInt64
  }

  /// File systems whose contents the clone has as home has them: ramfs, tmpfs, ext4, overlay, XFS, Btrfs, squashfs.
  private static let storage: Set<UInt64> = [
    0x8584_58f6, 0x0102_1994, 0xef53, 0x794c_7630, 0x5846_5342, 0x9123_683e, 0x7371_7368,
  ]
  /// What a clone's identity has changed.
  private static let identity = [
    "/etc/hostname", "/etc/hosts", "/etc/machine-id", "/run/", "/var/run/", "/dev/", "/proc/", "/sys/",
  ]

  /// O_PATH
  private static let namesOnly: Int32 = 0o10_000_000

  private let tracee: Tracee
  private var before: [UInt32: OpenFile] = [:]

  init(_ tracee: Tracee) { self.tracee = tracee }

  func begin() { before = table() }

  /// A regular file on a disk or in memory, opened for reading only, which both have alike.
  func isPlain(_ descriptor: UInt64) -> Bool {
    guard descriptor < 1 << 20 else { return false }
    let path = "/proc/\(tracee.pid)/fd/\(descriptor)"
    guard let target = linkTarget(path), isStored(path, target),
      let information = contents(of: "/proc/\(tracee.pid)/fdinfo/\(descriptor)"),
      let flags = field("flags:", of: information, base: 8)
    else { return false }
    return Self.onlyReads(flags)
  }

  private func isStored(_ path: String, _ target: String) -> Bool {
    var status = stat()
    var system = statfs()
    guard target.hasPrefix("/"), !target.hasSuffix(" (deleted)"),
      !Self.identity.contains(where: { target.hasPrefix($0) }),
      stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFREG, statfs(path, &system) == 0
    else { return false }
    return Self.storage.contains(UInt64(bitPattern: Int64(system.f_type)))
  }

  static func onlyReads(_ flags: UInt64) -> Bool {
    let changes = O_ACCMODE | O_CREAT | O_TRUNC | O_APPEND | O_ASYNC
    return flags & UInt64(changes) == 0
  }

  /// Whether a path names a plain file here as at home, or nothing here as at home.
  func isSame(_ address: UInt64, in directory: UInt64) -> Bool {
    guard let bytes = tracee.text(address), !bytes.isEmpty else { return false }
    let path = String(decoding: bytes, as: UTF8.self)
    let process = "/proc/\(tracee.pid)"
    let start =
      path.hasPrefix("/")
      ? process + "/root"
      : Int32(truncatingIfNeeded: directory) == -100 ? process + "/cwd/" : process + "/fd/\(directory)/"
    if Self.identity.contains(where: { path.hasPrefix($0) }) { return false }
    let fd = open(start + path, Self.namesOnly | O_CLOEXEC)
    guard fd >= 0 else { return errno == ENOENT && path.hasPrefix("/") }
    defer { close(fd) }
    let own = "/proc/self/fd/\(fd)"
    guard let target = linkTarget(own) else { return false }
    return isStored(own, target)
  }

  private func table() -> [UInt32: OpenFile] {
    var table: [UInt32: OpenFile] = [:]
    for name in names(in: "/proc/\(tracee.pid)/fd") {
      var status = stat()
      guard let descriptor = UInt32(name), stat("/proc/\(tracee.pid)/fd/\(name)", &status) == 0,
        let text = contents(of: "/proc/\(tracee.pid)/fdinfo/\(name)"),
        let offset = field("pos:", of: text, base: 10), let flags = field("flags:", of: text, base: 8)
      else { continue }
      let isRegular = status.st_mode & S_IFMT == S_IFREG
      table[descriptor] = OpenFile(
        device: UInt64(status.st_dev), inode: UInt64(status.st_ino), flags: UInt32(truncatingIfNeeded: flags),
        offset: isRegular ? offset : 0)
    }
    return table
  }

  func changes() throws -> [BlockState.FileChange] {
    let after = table()
    var changes: [BlockState.FileChange] = []
    for descriptor in before.keys.sorted() where after[descriptor] == nil {
      changes.append(.closed(descriptor: descriptor))
    }
    for (descriptor, file) in after.sorted(by: { $0.key < $1.key }) {
      if let old = before[descriptor], old.device == file.device, old.inode == file.inode,
        old.flags == file.flags
      {
        if old.offset != file.offset { changes.append(.moved(descriptor: descriptor, offset: file.offset)) }
        continue
      }
      guard let path = linkTarget("/proc/\(tracee.pid)/fd/\(descriptor)"), isPlain(UInt64(descriptor)) else {
        throw AwaySide.Failed(reason: "descriptor \(descriptor) is no plain file")
      }
      changes.append(.opened(descriptor: descriptor, flags: file.flags, offset: file.offset, path: path))
    }
    return changes
  }
}
