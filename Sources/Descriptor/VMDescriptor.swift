/// Everything of a frozen VM but the bytes of its RAM: what a host needs to make a clone of it.
///
/// `encode()` and `decode(_:limits:)` are inverse; the format is drawn in `DescriptorFormat.swift`.
public struct VMDescriptor: Sendable, Equatable {
  public var snapshot: String
  /// The VM that was frozen.
  public var parent: String
  public var image: String
  /// Microseconds since 1970, UTC.
  public var createdMicroseconds: UInt64
  public var ramBytes: UInt64
  public var vcpus: UInt32
  /// What the device state can be loaded by: QEMU version, machine type, CPU model, accelerator.
  public var compatibility: String
  public var kernelCommandLine: String
  public var readOnlyDisks: [ReadOnlyDisk]
  /// QEMU's migration stream without RAM, ≈ 350 KB.
  public var deviceState: [UInt8]
  /// Pages that are not known to be zero: ascending, no two runs touch. All others are zero.
  public var existingPages: [PageRun]
  /// Nil until clones have a network.
  public var network: NetworkIdentity?

  /// RAM is counted in pages of this size.
  public static let pageBytes: UInt64 = 4096

  public init(
    snapshot: String, parent: String, image: String, createdMicroseconds: UInt64, ramBytes: UInt64,
    vcpus: UInt32, compatibility: String, kernelCommandLine: String, readOnlyDisks: [ReadOnlyDisk] = [],
    deviceState: [UInt8], existingPages: [PageRun], network: NetworkIdentity? = nil
  ) {
    self.snapshot = snapshot
    self.parent = parent
    self.image = image
    self.createdMicroseconds = createdMicroseconds
    self.ramBytes = ramBytes
    self.vcpus = vcpus
    self.compatibility = compatibility
    self.kernelCommandLine = kernelCommandLine
    self.readOnlyDisks = readOnlyDisks
    self.deviceState = deviceState
    self.existingPages = existingPages
    self.network = network
  }

  /// Refuses a descriptor whose device state this machine can not load.
  public func requireCompatible(with here: String) throws(DescriptorError) {
    guard compatibility == here else { throw .incompatible(made: compatibility, here: here) }
  }
}

extension VMDescriptor {
  /// `count` pages of RAM from page `first` on. `count` is at least 1.
  public struct PageRun: Sendable, Hashable {
    public var first: UInt64
    public var count: UInt64
    public init(first: UInt64, count: UInt64) {
      self.first = first
      self.count = count
    }
  }

  /// A disk that every clone opens as the parent had it.
  public struct ReadOnlyDisk: Sendable, Hashable {
    public var path: String
    public var sizeBytes: UInt64
    /// SHA-256 of its content, 32 bytes; all zero if it was not computed.
    public var digest: [UInt8]
    public init(path: String, sizeBytes: UInt64, digest: [UInt8] = .init(repeating: 0, count: 32)) {
      self.path = path
      self.sizeBytes = sizeBytes
      self.digest = digest
    }
  }

  /// The parent's address, from which those of its clones are made.
  public struct NetworkIdentity: Sendable, Hashable {
    /// `52:54:00:12:34:56`
    public var mac: String
    /// Address and prefix length, `10.0.0.1/24`; empty if it has none.
    public var ip: String
    public init(mac: String, ip: String) {
      self.mac = mac
      self.ip = ip
    }
  }
}

/// What a reader accepts. The sizes are checked before anything is allocated.
public struct DescriptorLimits: Sendable {
  public var totalBytes: UInt64
  public var deviceStateBytes: UInt64
  public var ramBytes: UInt64
  public var vcpus: UInt32
  public var readOnlyDisks: Int

  /// 16 TiB of RAM, 4,096 virtual CPUs, 64 MiB of device state.
  public static let standard = DescriptorLimits()

  public init(
    totalBytes: UInt64 = 1 << 30, deviceStateBytes: UInt64 = 64 << 20, ramBytes: UInt64 = 16 << 40,
    vcpus: UInt32 = 4096, readOnlyDisks: Int = 64
  ) {
    self.totalBytes = totalBytes
    self.deviceStateBytes = deviceStateBytes
    self.ramBytes = ramBytes
    self.vcpus = vcpus
    self.readOnlyDisks = readOnlyDisks
  }
}
