import Foundation
import LinuxSystem

/// Why something about disks failed, to be wrapped into the user's sentence.
public struct DiskError: Error, Sendable, CustomStringConvertible {
  public var description: String
  /// The file system that disks are on is full.
  public var isNoRoom: Bool

  public init(_ description: String, isNoRoom: Bool = false) {
    self.description = description
    self.isNoRoom = isNoRoom
  }

  /// What went wrong while a file was made in that directory, with the one cause that an operator can do something about
  /// told from the others.
  static func making(in directory: String, _ error: any Error) -> any Error {
    let noRoom = String(cString: strerror(ENOSPC))
    let isNoRoom =
      switch error {
      case let error as SystemError: error.errno == ENOSPC || error.errno == EDQUOT
      case let error as CocoaError: error.code == .fileWriteOutOfSpace
      default: "\(error)".contains(noRoom)
      }
    return isNoRoom ? DiskError("there is no room for it in \(directory)", isNoRoom: true) : error
  }
}

/// What a program that did not start has said last.
func lastLine(of log: String) -> String {
  let text = String(decoding: FileManager.default.contents(atPath: log) ?? Data(), as: UTF8.self)
  return text.split(whereSeparator: \.isNewline).last.map(String.init) ?? "it left no word in \(log)"
}
