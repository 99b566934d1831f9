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
  /// In the order of the VM's devices.
  public var disks: [Disk]
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
    vcpus: UInt32, compatibility: String, kernelCommandLine: String, disks: [Disk] = [],
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
    self.disks = disks
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

  /// A disk as it was when the VM stood still: files that nobody writes any more, from the uppermost down.
  public struct Disk: Sendable, Hashable {
    public var virtualBytes: UInt64
    public var layers: [DiskLayer]
    public init(virtualBytes: UInt64, layers: [DiskLayer]) {
      self.virtualBytes = virtualBytes
      self.layers = layers
    }
  }

  public struct DiskLayer: Sendable, Hashable {
    /// Names the layer in the cluster; whoever knows it may read it.
    public var id: String
    /// `raw` or `qcow2`.
    public var format: String
    /// The host that has the file.
    public var host: String
    public init(id: String, format: String, host: String) {
      self.id = id
      self.format = format
      self.host = host
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
  public var disks: Int
  public var layersOfADisk: Int

  /// 16 TiB of RAM, 4,096 virtual CPUs, 64 MiB of device state.
  public static let standard = DescriptorLimits()

  public init(
    totalBytes: UInt64 = 1 << 30, deviceStateBytes: UInt64 = 64 << 20, ramBytes: UInt64 = 16 << 40,
    vcpus: UInt32 = 4096, disks: Int = 64, layersOfADisk: Int = 4096
  ) {
    self.totalBytes = totalBytes
    self.deviceStateBytes = deviceStateBytes
    self.ramBytes = ramBytes
    self.vcpus = vcpus
    self.disks = disks
    self.layersOfADisk = layersOfADisk
  }
}
