import Foundation
import LinuxSystem

extension LibvirtHypervisor {
  /// Who QEMU runs as, and must be able to open its files.
  public static let user = EmbeddedRoot.user

  public func diskFiles(_ name: String) throws(HypervisorError) -> [[String]] {
    let operation = "looking at the disks"
    return try disks(of: Domain(name, of: connection, operation: operation), operation: operation).map(
      \.files)
  }

  public func disk(of name: String, atNode node: String) throws(HypervisorError) -> Int? {
    let operation = "looking for a disk"
    return try disks(of: Domain(name, of: connection, operation: operation), operation: operation)
      .firstIndex { $0.node == node }
  }

  public func merge(
    _ name: String, disk index: Int, upper: String, lower: String
  ) throws(HypervisorError) -> Bool {
    let operation = "merging layers of a disk"
    let domain = try Domain(name, of: connection, operation: operation)
    let disks = try disks(of: domain, operation: operation)
    func failure(_ cause: String) -> HypervisorError {
      HypervisorError(.failed, operation: operation, machine: name, cause: cause)
    }
    guard disks.indices.contains(index), let place = disks[index].files.firstIndex(of: upper), place > 0,
      disks[index].files.dropFirst(place + 1).first == lower,
      let top = try node(of: upper, domain, operation), let base = try node(of: lower, domain, operation)
    else { throw failure("\(upper) does not lie on \(lower)") }
    try domain.command(
      """
      {"execute":"block-commit","arguments":{"job-id":"\(Self.mergeJob)","device":"\(disks[index].node)",\
      "top-node":"\(top)","base-node":"\(base)","auto-dismiss":false}}
      """, operation: operation)
    guard let job = try awaitMergeJob(domain, operation) else { throw failure("its job is gone") }
    if let error = job.error {
      if error.contains("cancel") { return false }
      throw failure(error)
    }
    // A job that was called off at its very end may have ended well.
    let files = try self.disks(of: domain, operation: operation)[index].files
    guard !files.contains(upper) else { return false }
    _ = try? domain.command(
      #"{"execute":"blockdev-del","arguments":{"node-name":"\#(top)"}}"#, operation: operation)
    return true
  }

  public func stopMerging(_ name: String) {
    guard let domain = try? Domain(name, of: connection, operation: "merging") else { return }
    _ = try? domain.command(
      #"{"execute":"job-cancel","arguments":{"id":"\#(Self.mergeJob)"}}"#, operation: "merging")
  }

  public func endMerging(_ name: String) throws(HypervisorError) {
    let operation = "ending a merge"
    stopMerging(name)
    _ = try awaitMergeJob(Domain(name, of: connection, operation: operation), operation)
  }

  /// Returns when the job has ended, and dismisses it. Nil: there is none.
  private func awaitMergeJob(_ domain: Domain, _ operation: String) throws(HypervisorError) -> JobAnswer.Job?
  {
    while true {
      let answer = try domain.command(#"{"execute":"query-jobs"}"#, operation: operation)
      let jobs = try? JSONDecoder().decode(JobAnswer.self, from: Data(answer.utf8)).return
      guard let job = jobs?.first(where: { $0.id == Self.mergeJob }) else { return nil }
      if job.status == "concluded" {
        try domain.command(
          #"{"execute":"job-dismiss","arguments":{"id":"\#(Self.mergeJob)"}}"#, operation: operation)
        return job
      }
      usleep(5_000)
    }
  }

  private static let mergeJob = "snowfork-merge"

  private struct JobAnswer: Decodable {
    struct Job: Decodable {
      var id: String
      var status: String
      var error: String?
    }
    var `return`: [Job]
  }

  /// The node of a qcow2 file that is open.
  private func node(
    of path: String, _ domain: Domain, _ operation: String
  ) throws(HypervisorError) -> String? {
    let answer = try domain.command(
      #"{"execute":"query-named-block-nodes","arguments":{"flat":true}}"#, operation: operation)
    let nodes = try? JSONDecoder().decode(NodeAnswer.self, from: Data(answer.utf8)).return
    return nodes?.first { $0.drv == "qcow2" && Self.ownFile(of: $0.file) == path }?.nodeName
  }

  private struct NodeAnswer: Decodable {
    struct Node: Decodable {
      var drv: String
      var file: String
      var nodeName: String
      enum CodingKeys: String, CodingKey {
        case drv, file
        case nodeName = "node-name"
      }
    }
    var `return`: [Node]
  }

  /// The nodes that disks are written to, and their files from there down, in the order of the devices.
  private func disks(
    of domain: Domain, operation: String
  ) throws(HypervisorError) -> [(node: String, files: [String])] {
    let answer = try domain.command(#"{"execute":"query-block"}"#, operation: operation)
    do {
      let blocks = try JSONDecoder().decode(BlockAnswer.self, from: Data(answer.utf8)).return
      var found: [(index: Int, node: String, files: [String])] = []
      for block in blocks {
        // libvirt's alias of the n-th disk is in the device's path in QEMU's tree.
        guard let inserted = block.inserted, let index = Self.index(ofDevice: block.qdev ?? ""),
          let node = inserted.nodeName
        else { continue }
        var files: [String] = []
        var image: BlockAnswer.Image? = inserted.image
        while let one = image {
          files.append(Self.ownFile(of: one.filename))
          image = one.backing.first
        }
        found.append((index, node, files))
      }
      return found.sorted { $0.index < $1.index }.map { ($0.node, $0.files) }
    } catch {
      throw HypervisorError(
        .failed, operation: operation, machine: domain.name, cause: "QEMU's answer does not read: \(error)")
    }
  }

  private static func index(ofDevice path: String) -> Int? {
    guard let alias = path.split(separator: "/").first(where: { $0.hasPrefix("virtio-disk") }) else {
      return nil
    }
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
    struct Image: Decodable {
      var filename: String
      var backing: [Image]
      enum CodingKeys: String, CodingKey {
        case filename
        case backing = "backing-image"
      }
      init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        filename = try container.decode(String.self, forKey: .filename)
        backing = try container.decodeIfPresent(Image.self, forKey: .backing).map { [$0] } ?? []
      }
    }
    struct Inserted: Decodable {
      var image: Image
      var nodeName: String?
      enum CodingKeys: String, CodingKey {
        case image
        case nodeName = "node-name"
      }
    }
    struct Block: Decodable {
      var qdev: String?
      var inserted: Inserted?
    }
    var `return`: [Block]
  }

  /// Connects to the servers of what disks lie on, before the machine runs. libvirt 9.0 can do that too, but not say how long a
  /// read waits for a server that is gone.
  func back(_ disks: [MachineDisk], of domain: Domain, operation: String) throws(HypervisorError) {
    guard disks.contains(where: { $0.backing != nil }) else { return }
    let known = try self.disks(of: domain, operation: operation)
    for (index, disk) in disks.enumerated() {
      guard let backing = disk.backing else { continue }
      guard known.indices.contains(index) else {
        throw HypervisorError(
          .failed, operation: operation, machine: domain.name, cause: "it has no disk \(index)")
      }
      let below = "below-\(index)"
      // libvirt's names: libvirt-1-format on libvirt-1-storage.
      let fileNode = known[index].node.replacingOccurrences(of: "-format", with: "-storage")
      try domain.command(
        """
        {"execute":"blockdev-add","arguments":{"driver":"nbd","node-name":"\(below)","read-only":true,\
        "server":{"type":"unix","path":"\(backing.socketPath)"},"export":"\(backing.export)",\
        "reconnect-delay":\(backing.reconnectSeconds)}}
        """, operation: operation)
      try domain.command(
        """
        {"execute":"blockdev-reopen","arguments":{"options":[{"driver":"qcow2","node-name":"\(known[index].node)",\
        "file":"\(fileNode)","backing":"\(below)","read-only":false,"discard":"unmap",\
        "cache":{"direct":false,"no-flush":true}}]}}
        """, operation: operation)
    }
  }

  /// New files, opened and ready to be put over what disks are written to now (QEMU, docs/interop/
  /// live-block-operations): one command while the machine stands still.
  struct DiskTurns {
    let domain: Domain
    let operation: String
    var nodes: [(old: String, new: String)] = []

    /// Puts the new files in place on a thread of its own, while `other` runs. `turned` is called once the disks are
    /// written to the new files, also if `other` has thrown.
    func make(during other: () throws -> Void, turned: () -> Void) throws {
      if nodes.isEmpty { return try other() }
      nonisolated(unsafe) let turns = self
      nonisolated(unsafe) var failure: HypervisorError?
      let thread = try NamedThread("disk-turns") {
        do throws(HypervisorError) { try turns.make() } catch { failure = error }
      }
      let result = Result { try other() }
      thread.join()
      if let failure { throw failure }
      turned()
      try result.get()
    }

    private func make() throws(HypervisorError) {
      let turns = nodes.map { #"{"node":"\#($0.old)","overlay":"\#($0.new)"}"# }
      guard let first = turns.first else { return }
      // QEMU reads commands byte by byte: the shorter one, where it will do.
      if turns.count == 1 {
        try domain.command(#"{"execute":"blockdev-snapshot","arguments":\#(first)}"#, operation: operation)
        return
      }
      let actions = turns.map { #"{"type":"blockdev-snapshot","data":\#($0)}"# }
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
  func prepare(_ turns: [DiskTurn], of domain: Domain, operation: String) throws(HypervisorError) -> DiskTurns
  {
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
        // Whoever prepared for it before may have died.
        _ = try? domain.command(
          #"{"execute":"blockdev-del","arguments":{"node-name":"\#(turn.node)"}}"#, operation: operation)
        try domain.command(
          """
          {"execute":"blockdev-add","arguments":{"driver":"qcow2","node-name":"\(turn.node)","backing":null,\
          "discard":"unmap","cache":{"no-flush":true},"file":{"driver":"file","filename":"\(turn.path)",\
          "aio":"\(FileEngine.here.rawValue)","discard":"unmap","cache":{"no-flush":true}}}}
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
