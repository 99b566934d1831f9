import CloneDisk
import Foundation
import Testing

/// The real qemu-storage-daemon and nbdkit.
@Suite(.serialized, .timeLimit(.minutes(2))) struct StorageTests {
  private static let blocks = 40

  @Test func anExportIsEmptyUntilItIsBound() throws {
    let host = try DiskHost("h1")
    let (layer, bytes) = try host.disks.store.adopt(host.file(blocks: Self.blocks), host: "h1")
    #expect(bytes == UInt64(Self.blocks) << 16 && layer.format == .raw)
    try host.disks.daemon.add(.init(name: "e", virtualBytes: bytes, layers: []))
    #expect(try host.reads("e", blocks: 0..<1) == true)
    #expect(try host.reads("e", blocks: 1..<2) == false)
    try host.disks.daemon.bind("e", to: [layer])
    #expect(try host.reads("e", blocks: 0..<Self.blocks) == true)
    host.disks.daemon.remove("e")
    #expect(try host.reads("e", blocks: 0..<1) == nil)
    // What is not needed is closed, and its file goes.
    host.disks.daemon.close(allBut: [])
    host.disks.store.removeAll(but: [], unneededFor: 0)
    #expect(try FileManager.default.contentsOfDirectory(atPath: host.directory + "/disks/layer").isEmpty)
  }

  @Test func oneThatWasKilledIsReplacedAndServesTheSame() throws {
    let host = try DiskHost("h1")
    let (layer, bytes) = try host.disks.store.adopt(host.file(blocks: Self.blocks), host: "h1")
    try host.disks.daemon.add(.init(name: "bound", virtualBytes: bytes, layers: [layer]))
    try host.disks.daemon.add(.init(name: "empty", virtualBytes: bytes, layers: []))
    let pid = try #require(host.pid(of: "qemu-storage-daemon"))
    DiskHost.end(pid)
    try host.disks.daemon.replaceIfGone()
    #expect(try host.reads("bound", blocks: 0..<Self.blocks) == true)
    #expect(try host.reads("empty", blocks: 0..<1) == true)
    // A call finds out by itself too.
    let second = try #require(host.pid(of: "qemu-storage-daemon"))
    #expect(second != pid)
    DiskHost.end(second)
    try host.disks.daemon.bind("empty", to: [layer])
    #expect(try host.reads("empty", blocks: 0..<Self.blocks) == true)
    for name in ["bound", "empty"] { host.disks.daemon.remove(name) }
  }

  @Test func anotherDaemonTakesItOver() throws {
    let host = try DiskHost("h1")
    let (layer, bytes) = try host.disks.store.adopt(host.file(blocks: Self.blocks), host: "h1")
    let export = StorageDaemon.Export(name: "e", virtualBytes: bytes, layers: [layer])
    try host.disks.daemon.add(export)
    try host.disks.daemon.add(.init(name: "nobodys", virtualBytes: bytes, layers: []))
    let pid = host.pid(of: "qemu-storage-daemon")
    host.disks.daemon.disconnect()
    let successor = try host.another().daemon
    try successor.adopt([export])
    #expect(host.pid(of: "qemu-storage-daemon") == pid)
    #expect(try host.reads("e", blocks: 0..<Self.blocks) == true)
    #expect(try host.reads("nobodys", blocks: 0..<1) == nil)
    successor.remove("e")
    successor.stop()
  }

  @Test func layersOfAnotherHostAreFetchedOnceAndKept() throws {
    let tls = "/tmp/sf-disk-tls-" + String(UInt32.random(in: 0...UInt32.max), radix: 36)
    try makeCertificates(tls, name: "h1.test")
    defer { try? FileManager.default.removeItem(atPath: tls) }
    let (origin, here) = (try DiskHost("h1", certificates: tls), try DiskHost("h2", certificates: tls))
    let (layer, bytes) = try origin.disks.store.adopt(origin.file(blocks: Self.blocks), host: "h1")
    let port = 17_544
    try origin.disks.server.serve([layer.id], address: "127.0.0.1", port: port)
    here.disks.daemon.setSource(.init(address: "127.0.0.1", port: port, tlsName: "h1.test"), of: "h1")
    try here.disks.daemon.add(.init(name: "e", virtualBytes: bytes, layers: [layer]))
    #expect(try here.reads("e", blocks: 0..<Self.blocks / 2) == true)
    #expect(here.disks.store.cachedBytes(layer.id) < bytes, "only what was read has come")

    // What was read is here; what was not comes again when the origin does.
    let server = try #require(origin.pid(of: "nbdkit"))
    DiskHost.end(server)
    #expect(try here.reads("e", blocks: 0..<Self.blocks / 2) == true)
    // Its port is free a moment after it has ended.
    while (try? origin.disks.server.replaceIfGone()) == nil { usleep(1000) }
    #expect(try here.reads("e", blocks: 0..<Self.blocks) == true)

    // All of it can be brought, and then the origin is not needed.
    let third = try origin.disks.store.adopt(origin.directory + "/image.raw", host: "h1").layer
    try origin.disks.server.serve([third.id], address: "127.0.0.1", port: port)
    try here.disks.daemon.add(.init(name: "pushed", virtualBytes: bytes, layers: [third]))
    try here.disks.daemon.fetchAll([third], bytesPerSecond: 0)
    while here.disks.store.cachedBytes(third.id) < bytes { usleep(1000) }
    origin.disks.server.stop()
    #expect(try here.reads("pushed", blocks: 0..<Self.blocks) == true)
    try origin.disks.server.serve([], address: "127.0.0.1", port: port)
    here.disks.daemon.remove("pushed")

    // Who does not know the id, or is of another cluster, gets nothing.
    let unknown = DiskLayer(id: DiskLayer.newID(), format: .raw, host: "h1")
    #expect(throws: DiskError.self) { try here.disks.daemon.open([unknown]) }
    here.disks.daemon.setSource(.init(address: "127.0.0.1", port: port, tlsName: "h3.test"), of: "h1")
    let second = try origin.disks.store.adopt(origin.directory + "/image.raw", host: "h1").layer
    try origin.disks.server.serve([second.id], address: "127.0.0.1", port: port)
    #expect(throws: DiskError.self) { try here.disks.daemon.open([second]) }
    here.disks.daemon.remove("e")
  }

  @Test func filesThatCanNotBeDisksAreRefused() throws {
    let host = try DiskHost("h1")
    let path = try host.file(blocks: 1)
    #expect(throws: (any Error).self) { try host.disks.store.adopt(path + ".none", host: "h1") }
    _ = try run(
      "/usr/bin/qemu-img", ["create", "-q", "-f", "qcow2", "-b", path, "-F", "raw", path + ".qcow2"])
    #expect(throws: DiskError.self) { try host.disks.store.adopt(path + ".qcow2", host: "h1") }
  }
}
