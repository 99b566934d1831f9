import Glibc
import LinuxSystem
import Testing

@Suite struct SystemCallTests {
  @Test func errorsSayWhatOnWhatAndWhy() {
    let error = #expect(throws: SystemError.self) { _ = try OwnedDescriptor.open("/nonexistent", O_RDONLY) }
    #expect(error?.description == "open of /nonexistent: No such file or directory (2)")
  }

  @Test func descriptorsTravelOverASocket() throws {
    var ends: [CInt] = [-1, -1]
    #expect(socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue), 0, &ends) == 0)
    let (left, right) = (OwnedDescriptor(taking: ends[0]), OwnedDescriptor(taking: ends[1]))
    let event = try EventDescriptor()
    let sent: [UInt8] = [1, 2, 3]
    try sent.withUnsafeBytes { try UnixSocket.send(left, $0, descriptors: [event.descriptor.raw]) }
    var bytes = [UInt8](repeating: 0, count: 8)
    let (count, descriptors) = try bytes.withUnsafeMutableBytes { try UnixSocket.receive(right, into: $0) }
    #expect(bytes[0..<count] == [1, 2, 3])
    let received = try #require(descriptors.first)
    #expect(received.raw != event.descriptor.raw)
    event.signal()
    var value: UInt64 = 0
    #expect(read(received.raw, &value, 8) == 8 && value == 1)
    #expect(try UnixSocket.peer(left).pid == getpid())
  }

  /// What the page cache relies on: with huge=advise, a file that is written page by page keeps its holes.
  @Test func cacheFilesKeepHolesOfOnePage() throws {
    let place = "/tmp/sft-\(getpid())"
    mkdir(place, 0o700)
    try Tmpfs.mount(at: place, bytesMax: 64 << 20)
    defer {
      try? Tmpfs.unmount(place)
      rmdir(place)
    }
    let file = try MemoryFile.create("\(place)/pages", bytes: 16 << 20)
    let buffer = try HeldBuffer(pages: 1)
    memset(buffer.start, 7, 4096)
    for page in stride(from: UInt64(0), to: 4096, by: 2) {
      #expect(try file.write(at: page * 4096, from: buffer.start, count: 4096) == 4096)
    }
    #expect(try file.allocatedBytes() == 2048 * 4096)
    var runs = 0
    try file.forEachData { runs += $0.count == 4096 ? 1 : 1 << 20 }
    #expect(runs == 2048)
    #expect(try Tmpfs.contains(place))
  }

  @Test func memoryThatRunsOutIsACountNotAnError() throws {
    let place = "/tmp/sfe-\(getpid())"
    mkdir(place, 0o700)
    try Tmpfs.mount(at: place, bytesMax: 1 << 20)
    defer {
      try? Tmpfs.unmount(place)
      rmdir(place)
    }
    let file = try MemoryFile.create("\(place)/pages", bytes: 16 << 20)
    let buffer = try HeldBuffer(pages: 256)
    #expect(try file.write(at: 0, from: buffer.start, count: 512 << 10) == 512 << 10)
    let rest = try file.write(at: 512 << 10, from: buffer.start, count: 1 << 20)
    #expect(rest < 1 << 20 && rest % 4096 == 0)
  }

  @Test func thisKernelHasWhatPagingNeeds() {
    for feature in KernelFeature.probe() { #expect(feature.isPresent, "\(feature.sentence)") }
  }

  @Test func processesAreNamedByPidAndStart() throws {
    let start = try #require(processStartTime(getpid()))
    #expect(processStartTime(getpid()) == start)
    #expect(processStartTime(4_194_304) == nil)
  }
}
