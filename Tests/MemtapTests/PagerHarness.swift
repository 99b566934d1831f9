import Foundation
import LinuxSystem
import Memtap
import Testing

/// A real sf-memtap on a tmpfs of its own, and stand-ins for QEMU under the real RAM shim.
///
/// `close` ends everything; what is left then is a test's failure.
final class PagerHarness {
  let paths: MemtapPaths
  let client: MemtapClient
  private(set) var pager: Process?
  private var guests: [TestGuest] = []
  private let tuning: String
  /// The network namespace that the pager runs in. Nil: the test's own.
  private let network: String?

  /// `bytesMax`: of the tmpfs that holds RAM and page caches.
  init(bytesMax: UInt64 = 2 << 30, tuning: String = "", network: String? = nil) throws {
    // Short: a socket's path has 107 bytes.
    let run = "/tmp/sfm-\(getpid())-\(UInt32.random(in: 0 ..< .max))"
    paths = MemtapPaths(run: run)
    self.tuning = tuning
    self.network = network
    client = MemtapClient(socketPath: paths.controlSocket)
    for directory in [run, paths.memory] { mkdir(directory, 0o711) }
    try Tmpfs.mount(at: paths.memory, bytesMax: bytesMax)
    mkdir(paths.ram, 0o711)
    try startPager()
  }

  func startPager() throws {
    let process = Process()
    let program = try TestBinaries.path("sf-memtap")
    if let network {
      process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
      process.arguments = ["ip", "netns", "exec", network, program]
    } else {
      process.executableURL = URL(fileURLWithPath: program)
    }
    process.environment = [
      "SNOWFORK_RUN": paths.run, "SNOWFORK_PAGER_TUNING": tuning, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    ]
    try process.run()
    pager = process
    let deadline = ContinuousClock.now + .seconds(10)
    while true {
      if let status = try? client.status(), status.pid == process.processIdentifier { return }
      guard ContinuousClock.now < deadline, process.isRunning else {
        throw HarnessError("sf-memtap does not answer")
      }
      usleep(2000)
    }
  }

  /// As the kernel would, at any instruction.
  func killPager() {
    guard let process = pager else { return }
    kill(process.processIdentifier, SIGKILL)
    process.waitUntilExit()
    pager = nil
  }

  /// A VM whose shim has connected.
  func guest(_ name: String, pages: Int) throws -> TestGuest {
    let token = (0..<64).map { _ in String(UInt8.random(in: 0..<16), radix: 16) }.joined()
    try persistently { try client.expect(vm: name, token: token, ramBytes: UInt64(pages) * 4096) }
    let guest = try TestGuest(
      name: name, pages: pages, ramFile: "\(paths.ram)/\(name)",
      environment: paths.shimEnvironment(library: try TestBinaries.shim(), token: token))
    guests.append(guest)
    try persistently { try client.waitForShim(vm: name, timeoutMilliseconds: 5000) }
    return guest
  }

  /// Makes a call again as long as the pager is away, as the daemon does.
  @discardableResult
  func persistently<T>(_ call: () throws -> T) throws -> T {
    let deadline = ContinuousClock.now + .seconds(20)
    while true {
      do { return try call() } catch let error as MemtapError where error.code == .unavailable {
        guard ContinuousClock.now < deadline else { throw error }
        usleep(1000)
      }
    }
  }

  /// A clone of the snapshot.
  func clone(of snapshot: String, _ name: String, pages: Int) throws -> TestGuest {
    let guest = try guest(name, pages: pages)
    try client.activate(vm: name, snapshot: snapshot)
    return guest
  }

  /// Freezes a guest and returns what a clone of it has to see.
  func freeze(_ guest: TestGuest, as snapshot: String) throws -> [UInt64] {
    try client.arm(vm: guest.name)
    try guest.pause()
    try client.commit(vm: guest.name, snapshot: snapshot)
    let layout = try client.survey(snapshot: snapshot, kernel: nil)
    #expect(layout.ramBytes == UInt64(guest.pages) * 4096)
    // Reading changes nothing of a snapshot, as the kernel resolves it without the pager or from what is there.
    let tags = try guest.tags()
    var exists = [Bool](repeating: false, count: guest.pages)
    for run in layout.existing { for page in run.first..<run.first + run.count { exists[Int(page)] = true } }
    for page in 0..<guest.pages where tags[page] != 0 {
      #expect(exists[page], "page \(page) is missing in the layout")
    }
    try guest.resume()
    return tags
  }

  /// Ends one guest, as kill -9 would, and waits until the pager has noticed.
  func end(_ guest: TestGuest) throws {
    guest.end()
    guests.removeAll { $0 === guest }
    try client.forget(vm: guest.name)
  }

  /// Kills the guest's process only.
  func kill9(_ guest: TestGuest) {
    guest.end()
    guests.removeAll { $0 === guest }
  }

  func close() {
    for guest in guests { guest.end() }
    killPager()
    try? Tmpfs.unmount(paths.memory)
    try? FileManager.default.removeItem(atPath: paths.run)
    #expect(!FileManager.default.fileExists(atPath: paths.run), "\(paths.run) is left over")
  }

  /// The names of the snapshots whose files are there.
  func snapshotsOnDisk() -> [String] {
    ((try? FileManager.default.contentsOfDirectory(atPath: paths.snapshots)) ?? []).sorted()
  }

  func eventually(_ what: String, within: Duration = .seconds(5), _ condition: () throws -> Bool) throws {
    let deadline = ContinuousClock.now + within
    while !(try condition()) {
      if ContinuousClock.now > deadline { throw HarnessError("\(what): not within \(within)") }
      usleep(2000)
    }
  }
}

struct HarnessError: Error, CustomStringConvertible {
  let description: String
  init(_ description: String) { self.description = description }
}

/// The programs under test: beside the test's own binary, or in SNOWFORK_BIN.
enum TestBinaries {
  static func path(_ name: String) throws -> String {
    let own = URL(
      fileURLWithPath: try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe"))
    let places: [String?] = [
      ProcessInfo.processInfo.environment["SNOWFORK_BIN"], own.deletingLastPathComponent().path,
    ]
    for place in places.compactMap({ $0 }) where access("\(place)/\(name)", X_OK) == 0 {
      return "\(place)/\(name)"
    }
    throw HarnessError("\(name) is not built: neither in SNOWFORK_BIN nor beside \(own.path)")
  }

  /// The RAM shim, built by `make build`; built here if the tests run without it.
  static func shim() throws -> String { try builtShim.get() }

  private static let builtShim = Result { () throws -> String in
    let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("../..")
      .standardized
    let library = root.appendingPathComponent("build/lib/libsnowfork-ramshim.so").path
    if access(library, R_OK) == 0 { return library }
    let built = "/tmp/libsnowfork-ramshim-\(getpid()).so"
    let compiler = Process()
    compiler.executableURL = URL(fileURLWithPath: "/usr/bin/cc")
    compiler.arguments =
      ["-O2", "-fPIC", "-shared", "-pthread", "-o", built]
      + ["interpose", "channel", "overwrite", "device", "copy"].map {
        root.appendingPathComponent("Sources/RAMShim/\($0).c").path
      }
    try compiler.run()
    compiler.waitUntilExit()
    guard compiler.terminationStatus == 0 else { throw HarnessError("the RAM shim does not build") }
    return built
  }
}
