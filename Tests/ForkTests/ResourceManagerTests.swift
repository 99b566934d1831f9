import Fork
import Testing

struct ResourceManagerTests {
  static let shape = CloneShape(parent: "dev", memoryBytes: 1 << 30, vcpus: 2)
  static let each = EmbeddedResourceManager.reservation(memoryBytes: 1 << 30)
  let manager = EmbeddedResourceManager()

  static func load(
    _ name: String = "h1", free: UInt64, cpus: Int = 2, reserved: UInt64 = 0, inUse: Int = 0
  ) -> HostLoad {
    HostLoad(
      hostName: name, memoryFreeBytes: free, cpus: cpus, reservedBytes: reserved, vcpusInUse: inUse)
  }

  @Test func `all are granted where there is room`() throws {
    let placed = try manager.place(count: 8, of: Self.shape, on: [Self.load(free: 64 << 30)])
    #expect(placed == [Placement(host: "h1", count: 8)])
  }

  @Test func `fewer are granted where memory is short`() throws {
    let host = Self.load(free: 3 * Self.each + Self.each / 2)
    #expect(try manager.place(count: 8, of: Self.shape, on: [host]) == [Placement(host: "h1", count: 3)])
  }

  @Test func `what is promised to slots is not granted again`() throws {
    let host = Self.load(free: 3 * Self.each, reserved: 2 * Self.each, inUse: 4)
    #expect(try manager.place(count: 8, of: Self.shape, on: [host]) == [Placement(host: "h1", count: 1)])
  }

  @Test func `clones are spread evenly over equal hosts`() throws {
    let hosts = (1...8).map { Self.load("h\($0)", free: 64 << 30) }
    let placed = try manager.place(count: 32, of: Self.shape, on: hosts)
    #expect(placed == (1...8).map { Placement(host: "h\($0)", count: 4) })
  }

  @Test func `a host with more room gets more, one without gets none`() throws {
    let hosts = [
      Self.load("h1", free: 6 * Self.each), Self.load("h2", free: 2 * Self.each), Self.load("h3", free: 0),
    ]
    let placed = try manager.place(count: 6, of: Self.shape, on: hosts)
    #expect(placed == [Placement(host: "h1", count: 5), Placement(host: "h2", count: 1)])
  }

  @Test func `the refusal says what is free, what is needed and what to do`() {
    let error = #expect(throws: ForkError.self) {
      try manager.place(count: 1, of: Self.shape, on: [Self.load(free: 200 << 20)])
    }
    #expect(error?.code == .refused)
    #expect(
      error?.message
        == "cannot fork dev: host h1 has 200 MiB free and a clone needs 304 MiB. Free memory there or name another host with --host."
    )
  }

  @Test func `virtual CPUs are overcommitted, but not without end`() {
    let error = #expect(throws: ForkError.self) {
      try manager.place(count: 1, of: Self.shape, on: [Self.load(free: 64 << 30, inUse: 2 * 64)])
    }
    #expect(error?.code == .refused)
  }
}
