import Crypto

/// The layout of a descriptor, version 1. Integers are little-endian.
///
///       0        8       10      12       16       24       32                               64
///     header     ┌────────┬───────┬───────┬────────┬────────┬────────┬────────────────────────────────┐
///     64 bytes   │ magic  │version│header │sections│ total  │reserved│ checksum                       │
///                │        │       │ size  │        │ size   │ 0      │ SHA-256 of all other bytes     │
///                └────────┴───────┴───────┴────────┴────────┴────────┴────────────────────────────────┘
///       0        4        8        16       24                                56       64
///     table      ┌────────┬────────┬────────┬────────┬────────────────────────┬────────┐
///     64 bytes   │ type   │ flags  │ offset │ length │ digest                 │reserved│
///     a section  │        │        │        │        │ SHA-256 of the section │ 0      │
///                └────────┴────────┴────────┴────────┴────────────────────────┴────────┘
///     sections   one after the other in the table's order, without gaps, to the total size
///
/// Read in this order: magic, version, sizes against what is there, checksum, table, digests, sections.
/// Nothing is decoded before the checksum has been found right. A section of unknown type is skipped, or the
/// descriptor refused if the section's `required` flag is set. `docs/descriptor-format.md` tables the sections.
enum DescriptorFormat {
  /// `SNOWFRK` and a byte that text modes and terminals would change.
  static let magic: [UInt8] = [0x53, 0x4E, 0x4F, 0x57, 0x46, 0x52, 0x4B, 0x1A]
  static let version: UInt16 = 2
  static let headerBytes = 64
  static let tableEntryBytes = 64
  static let digestBytes = 32
  static let checksumOffset = 32
  static let sectionsMax: UInt32 = 64
  /// A string's length is 16 bits.
  static let stringBytesMax = Int(UInt16.max)

  /// Flag of a section: who does not know its type must refuse the descriptor.
  static let required: UInt32 = 1

  enum SectionType: UInt32, CaseIterable {
    case metadata = 1
    case disks = 2
    /// Existing pages as runs: see `PageRunCoding`.
    case pageRuns = 3
    /// Existing pages as a bitmap; in place of the runs where it is smaller.
    case pageBitmap = 4
    case deviceState = 5
    case network = 6

    var name: String {
      switch self {
      case .metadata: "metadata section"
      case .disks: "disk section"
      case .pageRuns, .pageBitmap: "RAM layout"
      case .deviceState: "device state"
      case .network: "network section"
      }
    }
  }

  /// SHA-256 of everything but the checksum's own 32 bytes. `bytes` is at least a header long.
  static func checksum(of bytes: UnsafeRawBufferPointer) -> [UInt8] {
    var hash = SHA256()
    hash.update(bufferPointer: UnsafeRawBufferPointer(rebasing: bytes[..<checksumOffset]))
    hash.update(bufferPointer: UnsafeRawBufferPointer(rebasing: bytes[(checksumOffset + digestBytes)...]))
    return Array(hash.finalize())
  }

  static func digest(of bytes: UnsafeRawBufferPointer) -> [UInt8] {
    var hash = SHA256()
    hash.update(bufferPointer: bytes)
    return Array(hash.finalize())
  }
}
