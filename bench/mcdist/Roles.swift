import BenchSupport
import Foundation
import Glibc
import GuestMemory
import LinuxSystem
import Mcdist

/// What this program does as one of the hosts. It says `ready`, is told `go`, says `done TIME BYTES`, with the time of
/// the clock that all hosts share, and ends with its standard input.
enum Role {
  static func run(_ arguments: [String]) throws {
    guard let name = arguments.first else { throw BenchError("which role?") }
    let rest = Array(arguments.dropFirst())
    switch name {
    case "mcdist-send": try McdistRole.send(address: rest[0], image: rest[1])
    case "mcdist-receive": try McdistRole.receive(rest)
    case "plain-send": try PlainRole.send(address: rest[0], image: rest[1])
    case "plain-receive": try PlainRole.receive(address: rest[0])
    case "tcp-send": try StreamRole.send(image: rest[0], to: Array(rest.dropFirst()))
    case "tcp-receive": try StreamRole.receive(address: rest[0], bytes: Int(rest[1])!)
    default: throw BenchError("there is no role \(name)")
    }
  }

  static func tell(_ line: String) { FileHandle.standardOutput.write(Data("\(line)\n".utf8)) }
  static func done(_ bytes: Int, at time: UInt64 = monotonicNanoseconds()) { tell("done \(time) \(bytes)") }
  static func waitForGo() { _ = readLine() }
}

/// A file that is read in place.
struct MappedFile {
  let bytes: UnsafeRawBufferPointer

  init(_ path: String) throws {
    let file = try OwnedDescriptor.open(path, O_RDONLY)
    var status = stat()
    guard fstat(file.raw, &status) == 0,
      let start = mmap(nil, Int(status.st_size), PROT_READ, MAP_SHARED | MAP_POPULATE, file.raw, 0),
      start != MAP_FAILED
    else { throw BenchError("\(path) can not be mapped") }
    bytes = UnsafeRawBufferPointer(start: start, count: Int(status.st_size))
  }
}

/// `PageServer` and `PageReceiver` as the pager has them.
enum McdistRole {
  private static let key = (0..<32).map { UInt8($0) }

  final class Image: PageProvider {
    let file: MappedFile
    init(_ path: String) throws { file = try MappedFile(path) }
    func read(_ page: PageIndex, into buffer: UnsafeMutableRawPointer) -> PageAnswer {
      buffer.copyMemory(from: file.bytes.baseAddress! + page * Page.bytes, byteCount: Page.bytes)
      return .bytes
    }
  }

  /// Keeps pages as the page cache of a host does: with `pwrite` into a sparse file on tmpfs.
  final class Cache: PageSink {
    private let file: MemoryFile
    private var isHere: PageBitmap
    private(set) var missing: Int
    init(_ path: String, pages: Int) throws {
      file = try MemoryFile.create(path, bytes: UInt64(pages * Page.bytes))
      // The memory is the system's to find, not the transfer's.
      guard posix_fallocate(file.descriptor.raw, 0, pages * Page.bytes) == 0 else {
        throw BenchError("no memory for \(path)")
      }
      isHere = PageBitmap(pageCount: pages)
      missing = pages
    }
    func isMissing(_ page: PageIndex) -> Bool { !isHere.contains(page) }
    func install(_ pages: PageRange, bytes: UnsafeRawPointer?, how: Arrival) -> Bool {
      for page in pages { isHere.insert(page) }
      missing -= pages.count
      guard let bytes else { return true }
      return pwrite(
        file.descriptor.raw, bytes, pages.count * Page.bytes, off_t(pages.lowerBound * Page.bytes))
        == pages.count * Page.bytes
    }
    func originGone(_ reason: String) { Role.tell("error \(reason)") }
  }

  static func send(address: String, image path: String) throws {
    let image = try Image(path)
    let server = try PageServer(
      .init(address: address, key: key, pageCount: image.file.bytes.count / Page.bytes), provider: image)
    let origin = server.origin
    Role.tell("ready \(origin.port) \(origin.group) \(origin.groupPort)")
    try loop(server.descriptors, { server.nextDeadline }, { server.readable(now: $0) })
    let seen = server.counters
    Role.tell(
      "counted sent=\(seen.bytesSent) served=\(seen.served) again=\(seen.retransmitted) "
        + "limit=\(seen.rateLimitBytesPerSecond)")
  }

  static func receive(_ arguments: [String]) throws {
    let pages = Int(arguments[5])!
    let cache = try Cache(arguments[6], pages: pages)
    let receiver = try PageReceiver(
      .init(
        origin: .init(
          address: arguments[1], port: UInt16(arguments[2])!, group: arguments[3],
          groupPort: UInt16(arguments[4])!),
        key: key, localAddress: arguments[0], pageCount: pages), sink: cache)
    Role.tell("ready")
    Role.waitForGo()
    receiver.prefetch(0..<pages, now: monotonicNanoseconds())
    var isTold = false
    try loop(receiver.descriptors, { receiver.nextDeadline }) {
      receiver.readable(now: $0)
      if cache.missing == 0 && !isTold {
        isTold = true
        Role.done(pages * Page.bytes)
      }
    }
    let seen = receiver.counters
    Role.tell(
      "counted retries=\(seen.retries) repaired=\(seen.repaired) duplicates=\(seen.duplicates) requests=\(seen.requests) "
        + "dropped=\(seen.dropped) transport=\(receiver.transport.rawValue)")
  }

  /// Serves until standard input ends.
  private static func loop(
    _ descriptors: [OwnedDescriptor], _ deadline: () -> UInt64?, _ turn: (UInt64) -> Void
  ) throws {
    let epoll = try Epoll()
    let timer = try TimerDescriptor()
    try epoll.add(timer.descriptor, .readable, tag: 0)
    for descriptor in descriptors { try epoll.add(descriptor, .readable, tag: 1) }
    let input = OwnedDescriptor(taking: dup(STDIN_FILENO))
    try epoll.add(input, .readable, tag: 2)
    turn(monotonicNanoseconds())
    while true {
      let next = deadline()
      if let next { timer.set(next) } else { timer.clear() }
      let count = try epoll.wait(timeoutMilliseconds: -1)
      for index in 0..<count where epoll.tag(index) == 2 { return }
      turn(monotonicNanoseconds())
    }
  }
}
