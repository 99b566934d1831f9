import Foundation

/// Why something about disks failed, to be wrapped into the user's sentence.
public struct DiskError: Error, Sendable, CustomStringConvertible {
  public var description: String
  public init(_ description: String) { self.description = description }
}

/// What a program that did not start has said last.
func lastLine(of log: String) -> String {
  let text = String(decoding: FileManager.default.contents(atPath: log) ?? Data(), as: UTF8.self)
  return text.split(whereSeparator: \.isNewline).last.map(String.init) ?? "it left no word in \(log)"
}
