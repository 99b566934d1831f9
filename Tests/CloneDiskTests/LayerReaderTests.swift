import CloneDisk
import Foundation
import Testing

/// Layers read as QEMU reads them: qemu-io writes, `qemu-img convert` of the same layers is what is right.
@Suite struct LayerReaderTests {
  private static let virtualBytes: UInt64 = 8 << 20

  /// What a VM does to a file between two forks.
  private static let writes = [
    ["write -P 1 0 64k", "write -P 2 200k 4k", "write -P 3 1M 2M"],
    ["write -P 4 4k 4k", "write -z -u 1M 8k", "write -P 0 1100k 12k", "write -P 5 2500k 1M"],
    ["write -P 6 8184k 4k", "write -z -u 0 4k", "write -P 7 1M 4k"],
  ]

  private static func layers(
    _ host: DiskHost, from base: [DiskLayer] = [], of virtualBytes: UInt64 = virtualBytes
  ) throws -> [DiskLayer] {
    var layers = base
    for commands in writes {
      let id = try host.disks.store.create(virtualBytes: virtualBytes)
      let layer = DiskLayer(id: id, format: .qcow2, host: "h1")
      // Some of it lies over what is below, as `-u` needs.
      let outcome = try run(
        "/usr/bin/qemu-io", commands.flatMap { ["-c", $0] } + [named([layer] + layers, host)])
      try #require(outcome.status == 0 && !outcome.text.contains("failed"), "\(outcome.text)")
      layers.insert(layer, at: 0)
    }
    return layers
  }

  private static func named(_ layers: [DiskLayer], _ host: DiskHost) -> String {
    var node = "null"
    for layer in layers.reversed() {
      let backing = layer.format == .raw ? "" : ",\"backing\":\(node)"
      node = """
        {"driver":"\(layer.format.rawValue)","file":{"driver":"file","filename":\
        "\(host.disks.store.layerPath(layer.id))"}\(backing)}
        """
    }
    return "json:" + node
  }

  private static func right(_ layers: [DiskLayer], _ host: DiskHost) throws -> [UInt8] {
    let path = host.directory + "/right"
    let outcome = try run("/usr/bin/qemu-img", ["convert", "-O", "raw", named(layers, host), path])
    try #require(outcome.status == 0, "\(outcome.text)")
    return Array(try Data(contentsOf: URL(fileURLWithPath: path)))
  }

  /// Puts what the layers say over `before`.
  private static func read(
    _ layers: [DiskLayer], _ host: DiskHost, over before: [UInt8], isWhole: Bool
  ) throws -> (contents: [UInt8], blocks: Int) {
    let scratch = host.directory + "/scratch"
    var (contents, blocks, last, lastZero) = (before, 0, 0, 0)
    let reader = try LayerReader(
      layers, of: UInt64(before.count), in: host.disks.store, scratch: isWhole ? scratch : nil)
    #expect(!FileManager.default.fileExists(atPath: scratch))
    try reader.read(blockBytes: 4096) { first, bytes in
      #expect(first >= last && bytes.count % 4096 == 0 && bytes.count <= 64 * 4096)
      last = first + bytes.count / 4096
      blocks += bytes.count / 4096
      for (index, byte) in bytes.enumerated() {
        if first * 4096 + index < contents.count {
          contents[first * 4096 + index] = byte
        } else {
          #expect(byte == 0)
        }
      }
    } zeros: { range in
      #expect(range.lowerBound >= lastZero)
      lastZero = range.upperBound
      for at in range.lowerBound * 4096..<min(range.upperBound * 4096, contents.count) { contents[at] = 0 }
    }
    return (contents, blocks)
  }

  @Test func layersOverEachOther() throws {
    let host = try DiskHost("h1")
    let layers = try Self.layers(host)
    let empty = [UInt8](repeating: 0, count: Int(Self.virtualBytes))
    let right = try Self.right(layers, host)
    #expect(try Self.read(layers, host, over: empty, isWhole: true).contents == right)
    // What the upper ones say is what makes of the lower ones' disk the whole.
    for count in 0...3 {
      let before = try Self.right(Array(layers[count...]), host, orZeros: empty)
      let changes = try Self.read(Array(layers[..<count]), host, over: before, isWhole: false)
      #expect(changes.contents == right, "\(count)")
      if count == 1 { #expect(changes.blocks == 2) }
    }
  }

  private static func right(
    _ layers: [DiskLayer], _ host: DiskHost, orZeros zeros: [UInt8]
  ) throws -> [UInt8] { layers.isEmpty ? zeros : try right(layers, host) }

  @Test(arguments: ["raw", "raw of odd bytes", "compressed"]) func overAUsersFile(_ kind: String) throws {
    let host = try DiskHost("h1")
    let raw = host.directory + "/user.raw"
    var bytes = [UInt8](repeating: 0, count: Int(Self.virtualBytes))
    for at in stride(from: 3 << 20, to: 5 << 20, by: 3) { bytes[at] = UInt8(truncatingIfNeeded: at) }
    bytes[bytes.count - 1000] = 9
    if kind == "raw of odd bytes" { bytes.removeLast(700) }
    try Data(bytes).write(to: URL(fileURLWithPath: raw))
    var path = raw
    if kind == "compressed" {
      path = host.directory + "/user.qcow2"
      let outcome = try run("/usr/bin/qemu-img", ["convert", "-c", "-O", "qcow2", raw, path])
      try #require(outcome.status == 0, "\(outcome.text)")
    }
    let (base, virtualBytes) = try host.disks.store.adopt(path, host: "h1")
    let empty = [UInt8](repeating: 0, count: Int(virtualBytes))
    let found = try Self.read([base], host, over: empty, isWhole: true).contents
    #expect(found.prefix(bytes.count) == bytes[...] && found.dropFirst(bytes.count).allSatisfy { $0 == 0 })
    let layers = try Self.layers(host, from: [base], of: virtualBytes)
    let right = try Self.right(layers, host)
    #expect(
      try Self.read(layers, host, over: empty, isWhole: true).contents.prefix(right.count) == right[...])
  }

  /// A guest that writes a qcow2 file's head to its disk has a raw disk all the same.
  @Test func aSharedFileIsRaw() throws {
    let host = try DiskHost("h1")
    let path = host.directory + "/standby"
    let bytes =
      [UInt8]("QFI\u{fb}".unicodeScalars.map { UInt8($0.value) }) + [UInt8](repeating: 3, count: 508)
    try Data(bytes).write(to: URL(fileURLWithPath: path))
    #expect(!LayerStore.isShared(path))
    let layer = try host.disks.store.share(path, host: "h1")
    #expect(layer.format == .raw && LayerStore.isShared(path))
    let found = try Self.read([layer], host, over: [UInt8](repeating: 0, count: 512), isWhole: true)
    #expect(found.contents == bytes)
    host.disks.store.remove(layer.id)
    #expect(!LayerStore.isShared(path))
  }
}
