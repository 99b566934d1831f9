import Foundation
import LinuxSystem

/// qemu-img.
enum ImageTool {
  struct Information: Decodable {
    var format: String
    var virtualSize: UInt64
    var backingFilename: String?
  }

  static func create(_ path: String, options: String, virtualBytes: UInt64) throws {
    _ = try run(["create", "-q", "-f", "qcow2", "-o", options, path, "\(virtualBytes)"])
  }

  static func info(_ path: String) throws -> Information {
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .custom { keys in
      // virtual-size, backing-filename
      let parts = keys.last!.stringValue.split(separator: "-")
      return Key(stringValue: parts[0] + parts.dropFirst().map(\.capitalized).joined())
    }
    return try decoder.decode(Information.self, from: try run(["info", "-U", "--output=json", path]))
  }

  /// A stretch of an image with its layers.
  struct MapEntry: Decodable {
    var start: UInt64
    var length: UInt64
    /// 0: the uppermost layer.
    var depth: Int
    /// Whether one of the layers says anything of it.
    var present: Bool
    var zero: Bool
    var data: Bool
    /// In that layer's file; nil: it is not there as it is.
    var offset: UInt64?
  }

  /// Of nodes as `blockdev-add` would take them, opened beside whoever has them open.
  static func map(_ nodes: JSONValue) throws -> [MapEntry] {
    try map(["-U", "--output=json", try named(nodes)])
  }

  static func map(_ path: String, format: String) throws -> [MapEntry] {
    try map(["-U", "--output=json", "-f", format, path])
  }

  private static func map(_ arguments: [String]) throws -> [MapEntry] {
    try JSONDecoder().decode([MapEntry].self, from: try run(["map"] + arguments))
  }

  /// Writes the contents to a new file.
  static func convert(_ nodes: JSONValue, toRaw path: String) throws {
    _ = try run(["convert", "-q", "-U", "-O", "raw", try named(nodes), path])
  }

  /// Whether a qcow2 file's data are in itself, and as they are.
  static func holdsItsData(_ path: String) throws -> Bool {
    let image = try JSONDecoder().decode(
      JSONValue.self, from: try run(["info", "-U", "--output=json", "-f", "qcow2", path]))
    return image["encrypted"] == nil && image["format-specific"]?["data"]?["data-file"] == nil
  }

  private static func named(_ nodes: JSONValue) throws -> String {
    "json:" + String(decoding: try JSONEncoder().encode(nodes), as: UTF8.self)
  }

  private struct Key: CodingKey {
    var stringValue: String
    var intValue: Int? { nil }
    init(stringValue: some StringProtocol) { self.stringValue = String(stringValue) }
    init?(stringValue: String) { self.stringValue = stringValue }
    init?(intValue: Int) { nil }
  }

  private static func run(_ arguments: [String]) throws -> Data {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/qemu-img")
    process.arguments = arguments
    let (output, errors) = (Pipe(), Pipe())
    process.standardInput = FileHandle.nullDevice
    process.standardOutput = output
    process.standardError = errors
    try process.run()
    let text = output.fileHandleForReading.readDataToEndOfFile()
    let complaint = errors.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    guard process.terminationStatus == 0 else {
      let words = String(decoding: complaint, as: UTF8.self).split(whereSeparator: \.isNewline).last ?? ""
      throw DiskError(words.isEmpty ? "qemu-img \(arguments[0]) failed" : String(words))
    }
    return text
  }
}
