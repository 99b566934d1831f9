import Foundation
import Glibc
import LinuxSystem
import Memtap
import Testing

/// Pages that a device fills whole in a clone are not fetched, and no snapshot notices how they came.
@Suite(.serialized) struct OverwriteTests {
  let pages = 4096

  private func faults(_ harness: PagerHarness, of vm: String) throws -> UInt64 {
    try #require(try harness.client.statistics().vms.first { $0.vm == vm }).faults
  }

  @Test func nothingIsFetchedOfWhatADeviceFills() throws {
    let harness = try PagerHarness()
    defer { harness.close() }
    let parent = try harness.guest("dev", pages: pages)
    try parent.write(0..<3000, tag: 1000)
    var expected = try harness.freeze(parent, as: "s1")
    let clone = try harness.clone(of: "s1", "dev.1", pages: pages)
    let sibling = try harness.clone(of: "s1", "dev.2", pages: pages)
    #expect(try clone.tags(2048..<2049) == [expected[2048]])
    let before = try faults(harness, of: "dev.1")

    // Pages of the parent, one that is mapped, some that are in the cache, and zeros.
    try clone.fill(1000..<3500, tag: 1 << 32)
    #expect(try faults(harness, of: "dev.1") == before)
    let model = expected
    for page in 1000..<3500 { expected[page] = 1 << 32 + UInt64(page) }
    #expect(try clone.tags() == expected)
    #expect(try sibling.tags() == model)
  }

  /// A device fills pages of a clone before its fork arms, while it is armed and after the commit.
  @Test func aCloneIsForkedWhileADeviceFillsItsPages() throws {
    let harness = try PagerHarness()
    defer { harness.close() }
    let parent = try harness.guest("g0", pages: pages)
    try parent.write(0..<2500, tag: 1000)
    var model = try harness.freeze(parent, as: "s1")
    let clone = try harness.clone(of: "s1", "g1", pages: pages)
    var models: [[UInt64]] = []
    func fill(_ range: Range<Int>, _ tag: UInt64) throws {
      try clone.fill(range, tag: tag << 32)
      for page in range { model[page] = tag << 32 + UInt64(page) }
    }
    for fork in 0..<3 {
      let first = fork * 1300
      try fill(first..<first + 300, UInt64(fork * 3 + 1))
      try harness.client.arm(vm: "g1")
      try fill(first + 200..<first + 500, UInt64(fork * 3 + 2))
      try harness.client.commit(vm: "g1", snapshot: "c\(fork)")
      models.append(model)
      try fill(first + 400..<first + 700, UInt64(fork * 3 + 3))
    }
    for fork in 0..<3 {
      let grandchild = try harness.clone(of: "c\(fork)", "h\(fork)", pages: pages)
      #expect(try grandchild.tags() == models[fork], "fork \(fork)")
    }
    #expect(try clone.tags() == model)
  }

  /// The shim alone, with a pager played by the test.
  @Test(arguments: [true, false]) func theShimCountsWhatItSparesIfItIsTo(avoids: Bool) throws {
    let run = "/dev/shm/sfm-\(getpid())-\(UInt32.random(in: 0 ..< .max))"
    let paths = MemtapPaths(run: run)
    for directory in [paths.ram, run + "/shim"] {
      try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    }
    defer { try? FileManager.default.removeItem(atPath: run) }
    let listener = try UnixSocket.listen(path: paths.shimSocket, mode: 0o600)
    let guest = try TestGuest(
      name: "dev", pages: pages, ramFile: "\(paths.ram)/dev",
      environment: paths.shimEnvironment(
        library: try TestBinaries.shim(), token: String(repeating: "0", count: 64)))
    defer { guest.end() }
    let socket = try UnixSocket.accept(listener)
    let hello = try #require(try ShimProtocol.readHello(socket))
    #expect(try ShimProtocol.countOverwritten(of: socket) == 0)

    let cache = try MemoryFile.create(run + "/cache", bytes: UInt64(pages) * 4096)
    let userfaultfd = try Userfaultfd(
      handedOver: try ShimProtocol.request(
        .mapCache(snapshot: "s1", cache: cache.descriptor, avoidsOverwrites: avoids, zeros: []), of: socket,
        device: try OwnedDescriptor.open("/dev/userfaultfd", O_RDWR)))
    // Ten pages are there already.
    #expect(userfaultfd.mapZero(address: hello.ramAddress, length: 10 * 4096).answer == .done)
    try guest.startFill(0..<50, tag: 7)
    if !avoids {
      var fault = pollfd(fd: userfaultfd.descriptor.raw, events: Int16(POLLIN), revents: 0)
      #expect(poll(&fault, 1, 10_000) == 1)
      #expect(userfaultfd.mapZero(address: hello.ramAddress + 10 * 4096, length: 40 * 4096).answer == .done)
    }
    try guest.finishWrite()
    #expect(try ShimProtocol.countOverwritten(of: socket) == (avoids ? 40 : 0))
    #expect(try guest.tags(0..<50) == (0..<50).map { 7 + UInt64($0) })
  }
}
