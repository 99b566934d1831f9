import Foundation
import Support
import Testing

/// A kept snapshot's descriptor is damaged on disk: `sfctl clone` says so, and starts and allocates nothing.
@Suite("Damaged descriptors", .serialized, .ownHost)
struct DescriptorDamageTests {
  enum Damage: String, CaseIterable, Sendable {
    case empty, truncated, header, version, flippedBit, grown, missing

    func apply(_ bytes: Data) -> Data? {
      var bytes = bytes
      switch self {
      case .empty: return Data()
      case .truncated: return bytes.prefix(bytes.count / 2)
      case .header: return bytes.prefix(10)
      case .version: bytes[4] ^= 0x40
      case .flippedBit: bytes[bytes.count * 2 / 3] ^= 0x10
      case .grown: bytes.append(Data(count: 4096))
      case .missing: return nil
      }
      return bytes
    }
  }

  private let host: TestHost

  init() throws {
    host = try #require(TestHost.here)
    try host.device()
  }

  @Test("Each kind of damage is a clear error", arguments: Damage.allCases)
  func damaged(_ damage: Damage) throws {
    let made = try host.sfctl("snapshot", "create", "dev", "point")
    try #require(made.status == 0, "\(made.error)")
    defer { _ = try? host.sfctl("snapshot", "rm", "point") }
    let file = try #require(descriptor())
    let whole = try Data(contentsOf: file)
    if let bytes = damage.apply(whole) {
      try bytes.write(to: file)
    } else {
      try FileManager.default.removeItem(at: file)
    }
    let before = try memoryInUse()

    let outcome = try host.sfctl("clone", "point", "-n", "2", "--json")
    #expect(outcome.status == 1, "\(outcome.error)")
    #expect(outcome.output.isEmpty)
    #expect(outcome.error.hasPrefix("sfctl: ") && outcome.error.contains("descriptor"), "\(outcome.error)")
    #expect(try host.vms().map(\.name) == ["dev"])
    #expect(try memoryInUse() <= before)

    try whole.write(to: file)
    let fork: ForkDocument = try host.document("clone", "point", "-n", "1")
    #expect(fork.clones.map(\.state) == ["running"])
    #expect(try host.sfctl("kill", fork.ticket).status == 0)
    #expect(try host.sfctl("join", fork.ticket).status == 0)
  }

  private func descriptor() -> URL? {
    let snapshots = host.state + "/snapshots"
    let all = FileManager.default.enumerator(atPath: snapshots)?.compactMap { $0 as? String } ?? []
    return all.first { $0.hasSuffix("/descriptor") }.map { URL(fileURLWithPath: snapshots + "/" + $0) }
  }

  /// Files in the memory file system: guests' RAM and page caches.
  private func memoryInUse() throws -> Int {
    FileManager.default.enumerator(atPath: host.memory)?.allObjects.count ?? 0
  }
}
