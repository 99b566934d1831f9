/// Why a descriptor could not be written or was refused. `description` is one sentence for the user.
///
/// A refusal happens before anything is allocated in the descriptor's name beyond a copy of its own bytes.
public enum DescriptorError: Error, Sendable, Equatable, CustomStringConvertible {
  /// It ends before what it says of itself does.
  case truncated(expectedBytes: UInt64, actualBytes: UInt64)
  case badMagic
  case version(found: UInt16, supported: UInt16)
  /// The bytes were changed since they were written. `part` is `descriptor` or a section's name.
  case checksum(part: String)
  /// A size or count that does not fit the rest of the descriptor, the limits, or the VM it describes.
  case sizes(String)
  /// A value that no writer of this version writes.
  case malformed(String)
  /// A section that must be understood and is not.
  case unknownSection(type: UInt32)
  /// Whole, but made by a machine whose device state this one can not load.
  case incompatible(made: String, here: String)

  public var description: String {
    switch self {
    case .truncated(let expected, let actual):
      "the descriptor is cut off: \(actual) of \(expected) bytes are there"
    case .badMagic:
      "this is not a snowfork descriptor"
    case .version(let found, let supported):
      "the descriptor has format version \(found) and this program reads version \(supported): "
        + "make the snapshot again with this program"
    case .checksum(let part):
      "the \(part) was damaged: its checksum does not fit its bytes"
    case .sizes(let what):
      "the descriptor's sizes do not fit: \(what)"
    case .malformed(let what):
      "the descriptor is malformed: \(what)"
    case .unknownSection(let type):
      "the descriptor needs section type \(type), which this program does not know: use the newer program"
    case .incompatible(let made, let here):
      "the snapshot was made under “\(made)” and can not be loaded under “\(here)”: "
        + "clone it on a host with the same QEMU and accelerator"
    }
  }
}
