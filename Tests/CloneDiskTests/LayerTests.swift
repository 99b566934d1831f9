import CloneDisk
import Foundation
import Testing

@Suite struct LayerTests {
  @Test func whatAForkDoesToADisk() {
    let base = DiskLayer(id: DiskLayer.newID(), format: .raw, host: "h1")
    var disk = VMDisk(virtualBytes: 1 << 20, active: "a", export: "e", base: [base])
    #expect(disk.point(host: "h2").layers == [DiskLayer(id: "a", format: .qcow2, host: "h2"), base])
    disk.advance(host: "h2")
    #expect(disk.active == "a" && disk.frozen.isEmpty, "without a file to go over to nothing happens")
    disk.next = "b"
    #expect(disk.layerIDs == ["a", "b", base.id])
    let point = disk.point(host: "h2")
    disk.advance(host: "h2")
    #expect(disk.active == "b" && disk.next == nil)
    #expect(disk.frozen + disk.base == point.layers)
  }

  @Test(arguments: [
    "", "a", "../../../etc/passwd", String(repeating: "A", count: 24), String(repeating: "g", count: 24),
    String(repeating: "0", count: 25),
  ])
  func noID(_ text: String) { #expect(!DiskLayer.isID(text)) }

  @Test func newIDsAreIDs() {
    let ids = (0..<100).map { _ in DiskLayer.newID() }
    #expect(ids.allSatisfy(DiskLayer.isID) && Set(ids).count == 100)
  }

  /// Nothing was synced: after the host's restart a file may hold what was never written to it.
  @Test func whatIsThereFromBeforeTheHostsRestartGoes() throws {
    let directory = NSTemporaryDirectory() + UUID().uuidString
    defer { try? FileManager.default.removeItem(atPath: directory) }
    func files() -> Int {
      ["layer", "cache", "served", "empty"].reduce(0) { count, name in
        count + ((try? FileManager.default.contentsOfDirectory(atPath: "\(directory)/\(name)"))?.count ?? 0)
      }
    }
    func start(_ boot: String) throws -> LayerStore {
      let path = directory + ".boot"
      try boot.write(toFile: path, atomically: true, encoding: .utf8)
      let store = LayerStore(directory: directory, owner: "root", bootIDPath: path)
      try store.prepare()
      return store
    }
    let store = try start("one")
    _ = try store.create(virtualBytes: 1 << 20)
    try "so far".write(toFile: directory + "/cache/x", atomically: true, encoding: .utf8)
    #expect(files() == 3)
    _ = try start("one")
    #expect(files() == 3, "another daemon changes nothing")
    _ = try start("two")
    #expect(files() == 0)
    try FileManager.default.removeItem(atPath: directory + ".boot")
  }

  @Test func recordsAreReadAgain() throws {
    var disk = VMDisk(virtualBytes: 5, active: "a", export: nil, base: [])
    disk.next = "b"
    #expect(try JSONDecoder().decode(VMDisk.self, from: JSONEncoder().encode(disk)) == disk)
  }
}
