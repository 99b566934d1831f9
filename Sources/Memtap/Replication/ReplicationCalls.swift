/// What the pages of a checkpoint are to be made of.
public struct CheckpointOrder: Sendable, Codable {
  public var snapshot: String
  /// An earlier snapshot of the same VM, of which a checkpoint was made; nil: all pages are wanted.
  public var base: String?
  /// A file that the pages are appended to.
  public var path: String
  /// Where the guest's kernel says what was free; nil: nothing was. Asked for without a base only.
  public var kernel: SurveyedKernel?

  public init(snapshot: String, base: String?, path: String, kernel: SurveyedKernel?) {
    self.snapshot = snapshot
    self.base = base
    self.path = path
    self.kernel = kernel
  }
}

/// The pages of a checkpoint, in its file.
public struct CheckpointPages: Sendable, Codable {
  public var offset: UInt64
  public var length: UInt64
  /// SHA-256.
  public var digest: [UInt8]
  /// That differ from the base, zeros too.
  public var dirtyPages: Int
  /// Of those: sent whole, and as changes.
  public var wholePages: Int
  public var changedPages: Int
}

/// The checkpoint that a standby's pages are of.
public struct StandbyMark: Sendable, Codable, Equatable {
  public var sequence: UInt64
  /// The checkpoint's.
  public var digest: [UInt8]
  public init(sequence: UInt64, digest: [UInt8]) {
    self.sequence = sequence
    self.digest = digest
  }
}

public struct StandbyStatus: Sendable, Codable {
  /// The snapshot that clones of it are made of.
  public var standby: String
  public var ramBytes: UInt64
  public var mark: StandbyMark
  /// VMs whose RAM is mapped on it.
  public var clones: [String]
  /// VMs or snapshots stand on it: it can not be changed as long as they do.
  public var isInUse: Bool
}
