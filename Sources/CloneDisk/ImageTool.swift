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
