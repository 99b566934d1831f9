import Fork
import Testing

struct ResourceManagerTests {
  static let shape = CloneShape(parent: "dev", memoryBytes: 1 << 30, vcpus: 2)
  static let idle = HostLoad(hostName: "h1", reservedBytes: 0, vcpusInUse: 0)

  static func manager(free: UInt64, cpus: Int = 2) -> EmbeddedResourceManager {
    EmbeddedResourceManager(memoryAvailable: { free }, cpuCount: { cpus })
  }

  @Test func `all are granted where there is room`() throws {
    #expect(try Self.manager(free: 64 << 30).place(count: 8, of: Self.shape, load: Self.idle) == 8)
  }

  @Test func `fewer are granted where memory is short`() throws {
    let each = EmbeddedResourceManager.reservation(memoryBytes: 1 << 30)
    #expect(try Self.manager(free: 3 * each + each / 2).place(count: 8, of: Self.shape, load: Self.idle) == 3)
  }

  @Test func `what is promised to slots is not granted again`() throws {
    let each = EmbeddedResourceManager.reservation(memoryBytes: 1 << 30)
    let load = HostLoad(hostName: "h1", reservedBytes: 2 * each, vcpusInUse: 4)
    #expect(try Self.manager(free: 3 * each).place(count: 8, of: Self.shape, load: load) == 1)
  }

  @Test func `the refusal says what is free, what is needed and what to do`() {
    let error = #expect(throws: ForkError.self) {
      try Self.manager(free: 200 << 20).place(count: 1, of: Self.shape, load: Self.idle)
    }
    #expect(error?.code == .refused)
    #expect(
      error?.message
        == "cannot fork dev: host h1 has 200 MiB free and a clone needs 304 MiB. Free memory there or name another host with --host."
    )
  }

  @Test func `virtual CPUs are overcommitted, but not without end`() {
    let load = HostLoad(hostName: "h1", reservedBytes: 0, vcpusInUse: 2 * 64)
    let error = #expect(throws: ForkError.self) {
      try Self.manager(free: 64 << 30).place(count: 1, of: Self.shape, load: load)
    }
    #expect(error?.code == .refused)
  }
}
