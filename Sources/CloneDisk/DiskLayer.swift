/// A part of a disk that nobody writes any more: a file on one host, which others read over the network.
///
/// Layers form a tree: each was written over the one below it, and that never changes. So a layer's identity stands for
/// the contents of a disk from it downwards.
public struct DiskLayer: Codable, Hashable, Sendable {
  public enum Format: String, Codable, Sendable { case raw, qcow2 }

  /// 24 hexadecimal digits of chance: the file's name here, and the right to read it from another host.
  public var id: String
  public var format: Format
  /// The host that has the file.
  public var host: String

  public init(id: String, format: Format, host: String) {
    self.id = id
    self.format = format
    self.host = host
  }

  public static func isID(_ text: String) -> Bool {
    text.utf8.count == 24 && text.utf8.allSatisfy { ($0 >= 48 && $0 < 58) || ($0 >= 97 && $0 < 103) }
  }

  /// QEMU's names of nodes have at most 31 characters.
  public static func newID() -> String {
    var generator = SystemRandomNumberGenerator()
    return (0..<24).map { _ in String(UInt8.random(in: 0..<16, using: &generator), radix: 16) }.joined()
  }
}

/// A disk as it was at a fork point.
public struct DiskPoint: Codable, Hashable, Sendable {
  public var virtualBytes: UInt64
  /// From the uppermost down.
  public var layers: [DiskLayer]

  public init(virtualBytes: UInt64, layers: [DiskLayer]) {
    self.virtualBytes = virtualBytes
    self.layers = layers
  }
}

/// The writable disk of a VM that lives:
///
///     active     its own file, qcow2, in its QEMU
///     frozen     files that were active until a fork, in its QEMU as well
///     ─────────  the NBD export `export` of this host's storage daemon
///     base       what it was cloned or started from
public struct VMDisk: Codable, Sendable, Equatable {
  public var virtualBytes: UInt64
  public var active: String
  /// Made for the next fork; its file exists, and QEMU may have gone over to it when a daemon died in mid-fork.
  public var next: String?
  public var frozen: [DiskLayer] = []
  /// Nil: there is nothing below its own files.
  public var export: String?
  public var base: [DiskLayer] = []

  public init(virtualBytes: UInt64, active: String, export: String?, base: [DiskLayer]) {
    self.virtualBytes = virtualBytes
    self.active = active
    self.export = export
    self.base = base
  }

  /// The disk as it is at this moment, were the active file frozen.
  public func point(host: String) -> DiskPoint {
    DiskPoint(
      virtualBytes: virtualBytes,
      layers: [DiskLayer(id: active, format: .qcow2, host: host)] + frozen + base)
  }

  /// The active file has become a layer, and `next` the active one.
  public mutating func advance(host: String) {
    guard let next else { return }
    frozen.insert(DiskLayer(id: active, format: .qcow2, host: host), at: 0)
    active = next
    self.next = nil
  }

  /// Every file that it needs.
  public var layerIDs: Set<String> {
    Set([active] + [next].compactMap(\.self) + (frozen + base).map(\.id))
  }
}
