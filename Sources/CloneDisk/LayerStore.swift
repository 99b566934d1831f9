import Foundation
import Glibc
import LinuxSystem
import Synchronization

/// The files of disks on this host, below `$SNOWFORK_STATE/disks`:
///
///     layer/ID      a file that a VM writes, or wrote until a fork; or a link to what the user named or an image has
///     cache/ID      what has come of another host's layer so far, qcow2
///     served/ID     a link to a layer that other hosts may read: whoever knows the ID
///     empty/BYTES   an empty file of that virtual size, to be copied
///     boot          the kernel's boot ID
///
/// Files are written without syncs: their VM does not outlive the host either. After the host's restart all of them go, for
/// they may not hold what was written to them; other hosts that still need one get errors.
public final class LayerStore: Sendable {
  public let directory: String
  /// Owner of the files that a QEMU writes.
  private let owner: String
  private let bootIDPath: String
  /// Since when files have been without use.
  private let unneeded = Mutex<[String: ContinuousClock.Instant]>([:])

  /// `bootIDPath`: a file that another start of the host gives other contents.
  public init(
    directory: String, owner: String, bootIDPath: String = "/proc/sys/kernel/random/boot_id"
  ) {
    self.directory = directory
    self.owner = owner
    self.bootIDPath = bootIDPath
  }

  public func layerPath(_ id: String) -> String { "\(directory)/layer/\(id)" }
  func cachePath(_ id: String) -> String { "\(directory)/cache/\(id)" }
  public var servedDirectory: String { "\(directory)/served" }

  /// Idempotent.
  public func prepare() throws {
    for name in ["", "/layer", "/cache", "/served", "/empty"] {
      try FileManager.default.createDirectory(
        atPath: directory + name, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o711])
    }
    let boot = try String(contentsOfFile: bootIDPath, encoding: .utf8)
    let note = directory + "/boot"
    if (try? String(contentsOfFile: note, encoding: .utf8)) == boot { return }
    removeAll(but: [], unneededFor: 0)
    for file in try FileManager.default.contentsOfDirectory(atPath: directory + "/empty") {
      unlink("\(directory)/empty/\(file)")
    }
    try boot.write(toFile: note, atomically: true, encoding: .utf8)
  }

  /// A file for a QEMU to write over what it lacks: empty, of that virtual size. Answers its id. On failure nothing of it
  /// is left.
  public func create(virtualBytes: UInt64) throws -> String {
    let id = DiskLayer.newID()
    let path = layerPath(id)
    let scratch = "\(directory)/empty/\(id)"
    do {
      let empty = "\(directory)/empty/\(virtualBytes)"
      if !FileManager.default.fileExists(atPath: empty) {
        // A cluster's parts of 4 KiB are written one by one: what a guest overwrites whole is never read from below.
        try ImageTool.create(
          scratch, options: "extended_l2=on,cluster_size=128k", virtualBytes: virtualBytes)
        try systemCall("rename", subject: empty) { rename(scratch, empty) }
      }
      try FileManager.default.copyItem(atPath: empty, toPath: path)
      guard let user = getpwnam(owner) else {
        throw DiskError("there is no user \(owner); is libvirt installed?")
      }
      let (uid, gid) = (user.pointee.pw_uid, user.pointee.pw_gid)
      try systemCall("chmod", subject: path) { chmod(path, 0o600) }
      try systemCall("chown", subject: path) { chown(path, uid, gid) }
      return id
    } catch {
      for file in [scratch, path] { unlink(file) }
      throw DiskError.making(in: directory, error)
    }
  }

  /// A file as a layer, which nobody may write from now on. `isKept`: it may be removed, or another put in its place, and
  /// the layer stays what it is; what comes with an image is.
  public func adopt(
    _ path: String, host: String, isKept: Bool = false
  ) throws -> (layer: DiskLayer, virtualBytes: UInt64) {
    let image = try ImageTool.info(path)
    guard let format = DiskLayer.Format(rawValue: image.format) else {
      throw DiskError("\(path) is in format \(image.format); qcow2 and raw are known")
    }
    if let backing = image.backingFilename {
      throw DiskError("\(path) has the backing file \(backing); flatten it with qemu-img convert")
    }
    let id = DiskLayer.newID()
    if isKept {
      try keep(path, as: layerPath(id))
    } else {
      try systemCall("symlink", subject: layerPath(id)) { symlink(path, layerPath(id)) }
    }
    return (DiskLayer(id: id, format: format, host: host), image.virtualSize)
  }

  /// A raw file of this host as a layer: while it has that name, and until the layer is removed, nobody may write it. What
  /// is on another file system is copied.
  public func share(_ path: String, host: String) throws -> DiskLayer {
    let id = DiskLayer.newID()
    try keep(path, as: layerPath(id))
    return DiskLayer(id: id, format: .raw, host: host)
  }

  /// Whether a layer is what `share` made of that file.
  public static func isShared(_ path: String) -> Bool {
    var status = stat()
    return stat(path, &status) == 0 && status.st_nlink > 1
  }

  /// By another name for the same file; on another file system by a copy.
  private func keep(_ path: String, as layer: String) throws {
    if link(path, layer) == 0 { return }
    guard errno == EXDEV || errno == EMLINK else {
      throw SystemError("link", subject: layer, errno: errno)
    }
    do { try FileManager.default.copyItem(atPath: path, toPath: layer) } catch {
      unlink(layer)
      throw DiskError.making(in: directory, error)
    }
  }

  /// Lets whoever knows its id read the layer from another host.
  func serve(_ id: String) throws {
    let link = "\(servedDirectory)/\(id)"
    let file = (try? FileManager.default.destinationOfSymbolicLink(atPath: layerPath(id))) ?? layerPath(id)
    if symlink(file, link) != 0, errno != EEXIST { throw SystemError("symlink", subject: link, errno: errno) }
  }

  /// What a file of this host takes on its disk; 0 of what the user or an image has.
  public func layerBytes(_ id: String) -> UInt64 { Self.allocatedBytes(layerPath(id)) }

  /// What has come of another host's layer.
  public func cachedBytes(_ id: String) -> UInt64 { Self.allocatedBytes(cachePath(id)) }

  private static func allocatedBytes(_ path: String) -> UInt64 {
    var status = stat()
    guard lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFREG, status.st_nlink == 1 else {
      return 0
    }
    return UInt64(status.st_blocks) * 512
  }

  /// A file that only its VM has used, which has gone.
  public func remove(_ id: String) { unlink(layerPath(id)) }

  /// Layers that other hosts may read.
  public var served: Set<String> {
    Set((try? FileManager.default.contentsOfDirectory(atPath: servedDirectory)) ?? [])
  }

  /// Takes away what has not been needed for so many seconds.
  public func removeAll(but needed: Set<String>, unneededFor seconds: Int) {
    for name in ["layer", "cache", "served"] {
      for id in (try? FileManager.default.contentsOfDirectory(atPath: "\(directory)/\(name)")) ?? [] {
        let path = "\(directory)/\(name)/\(id)"
        unneeded.withLock { since in
          if needed.contains(id) {
            since[path] = nil
          } else {
            let first = since[path] ?? .now
            since[path] = first
            guard ContinuousClock.now - first >= .seconds(seconds) else { return }
            unlink(path)
            since[path] = nil
          }
        }
      }
    }
  }
}
