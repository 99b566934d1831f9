/// One thing that `sfctl doctor` has looked at.
public struct Finding: Sendable, Codable {
  public enum Status: String, Sendable, Codable {
    case ok
    /// It works, but slower, or without something.
    case warning
    /// Nothing can be forked without it.
    case missing
  }
  /// A stable word for scripts: `qemu`, `libvirt`, `accelerator` …
  public var id: String
  public var status: Status
  /// A sentence: what was found.
  public var detail: String
  /// A sentence: what to do about it. Empty where nothing needs to be done.
  public var remedy: String

  public init(id: String, status: Status, detail: String, remedy: String = "") {
    self.id = id
    self.status = status
    self.detail = detail
    self.remedy = remedy
  }
}
