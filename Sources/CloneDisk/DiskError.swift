/// Why something about disks failed, to be wrapped into the user's sentence.
public struct DiskError: Error, Sendable, CustomStringConvertible {
  public var description: String
  public init(_ description: String) { self.description = description }
}
