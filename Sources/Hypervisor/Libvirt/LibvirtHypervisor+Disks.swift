import Foundation

extension LibvirtHypervisor {
  /// Who QEMU runs as, and must be able to open its files.
  public static let user = EmbeddedRoot.user

  public func writtenFiles(_ name: String) throws(HypervisorError) -> [String] {
    let operation = "looking at the disks"
    return try disks(of: Domain(name, of: connection, operation: operation), operation: operation).map(\.path)
  }

  /// Files and nodes that disks are written to, in the order of the devices.
  private func disks(
    of domain: Domain, operation: String
  ) throws(HypervisorError) -> [(node: String, path: String)] {
    let answer = try domain.command(#"{"execute":"query-block"}"#, operation: operation)
    do {
      let blocks = try JSONDecoder().decode(BlockAnswer.self, from: Data(answer.utf8)).return
      var found: [(index: Int, node: String, path: String)] = []
      for block in blocks {
        // libvirt's alias of the n-th disk is in the device's path in QEMU's tree.
        guard let inserted = block.inserted, let index = Self.index(ofDevice: block.qdev ?? ""),
          let node = inserted.nodeName
        else { continue }
        found.append((index, node, Self.ownFile(of: inserted.file)))
      }
      return found.sorted { $0.index < $1.index }.map { ($0.node, $0.path) }
    } catch {
      throw HypervisorError(
        .failed, operation: operation, machine: domain.name, cause: "QEMU's answer does not read: \(error)")
    }
  }

  private static func index(ofDevice path: String) -> Int? {
    guard let alias = path.split(separator: "/").first(where: { $0.hasPrefix("virtio-disk") }) else { return nil }
    return Int(alias.dropFirst("virtio-disk".count))
  }

  /// QEMU names a file whose backing is not the one in its header by its options, as `json:{…}`.
  private static func ownFile(of name: String) -> String {
    guard name.hasPrefix("json:"),
      let options = try? JSONDecoder().decode(FileOptions.self, from: Data(name.dropFirst(5).utf8))
    else { return name }
    return options.file?.filename ?? name
  }

  private struct FileOptions: Decodable {
    struct File: Decodable { var filename: String? }
    var file: File?
  }

  private struct BlockAnswer: Decodable {
    struct Inserted: Decodable {
      var file: String
      var nodeName: String?
      enum CodingKeys: String, CodingKey {
        case file
        case nodeName = "node-name"
      }
    }
    struct Block: Decodable {
      var qdev: String?
      var inserted: Inserted?
    }
    var `return`: [Block]
  }

  /// New files, opened and ready to be put over what disks are written to now (QEMU, docs/interop/
  /// live-block-operations): one command while the machine stands still.
  struct DiskTurns {
    let domain: Domain
    let operation: String
    var nodes: [(old: String, new: String)] = []

    func make() throws(HypervisorError) {
      guard !nodes.isEmpty else { return }
      let actions = nodes.map { node in
        #"{"type":"blockdev-snapshot","data":{"node":"\#(node.old)","overlay":"\#(node.new)"}}"#
      }
      try domain.command(
        #"{"execute":"transaction","arguments":{"actions":[\#(actions.joined(separator: ","))]}}"#,
        operation: operation)
    }

    func undo() {
      for node in nodes {
        _ = try? domain.command(
          #"{"execute":"blockdev-del","arguments":{"node-name":"\#(node.new)"}}"#, operation: operation)
      }
    }
  }

  /// The files are not written to before `make`.
  func prepare(_ turns: [DiskTurn], of domain: Domain, operation: String) throws(HypervisorError) -> DiskTurns {
    var prepared = DiskTurns(domain: domain, operation: operation)
    guard !turns.isEmpty else { return prepared }
    let current = try disks(of: domain, operation: operation)
    for turn in turns {
      guard current.indices.contains(turn.index) else {
        prepared.undo()
        throw HypervisorError(
          .failed, operation: operation, machine: domain.name, cause: "it has no disk \(turn.index)")
      }
      do {
        try domain.command(
          """
          {"execute":"blockdev-add","arguments":{"driver":"qcow2","node-name":"\(turn.node)","backing":null,\
          "discard":"unmap","cache":{"no-flush":true},"file":{"driver":"file","filename":"\(turn.path)",\
          "discard":"unmap","cache":{"no-flush":true}}}}
          """, operation: operation)
      } catch {
        prepared.undo()
        throw error
      }
      prepared.nodes.append((current[turn.index].node, turn.node))
    }
    return prepared
  }
}
