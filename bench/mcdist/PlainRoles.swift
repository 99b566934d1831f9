import BenchSupport
import Foundation
import Glibc
import LinuxSystem

/// The image in datagrams of Mcdist's size to a group, one `sendto` each, never again. Receivers count and forget.
enum PlainRole {
  private static let group = "239.192.7.7"
  private static let port: UInt16 = 7777
  /// As Mcdist: 1,400 bytes of UDP payload, of which 40 are header and tag.
  private static let datagram = 1400
  private static let header = 40

  static func send(address: String, image path: String) throws {
    let image = try MappedFile(path).bytes
    let socket = try DatagramSocket(DatagramEndpoint(address, port: 0), isShared: false, bufferBytes: 4 << 20)
    try socket.sendMulticast(from: DatagramEndpoint(address, port: 0).address, timeToLive: 1)
    let group = try DatagramEndpoint(Self.group, port: port)
    let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: datagram, alignment: 16)
    Role.tell("ready")
    Role.waitForGo()
    var at = 0
    while at < image.count {
      let count = min(datagram - header, image.count - at)
      (bytes.baseAddress! + header).copyMemory(from: image.baseAddress! + at, byteCount: count)
      let whole = UnsafeRawBufferPointer(start: bytes.baseAddress!, count: header + count)
      while socket.send(whole, to: group) == .full {
        var writable = pollfd(fd: socket.descriptor.raw, events: Int16(POLLOUT), revents: 0)
        poll(&writable, 1, 10)
      }
      at += count
    }
    Role.done(at)
  }

  /// Until told to stop: the time of the last datagram, and the bytes of the image that came.
  static func receive(address: String) throws {
    let group = try DatagramEndpoint(Self.group, port: port)
    let socket = try DatagramSocket(group, isShared: true, bufferBytes: 8 << 20)
    try socket.join(group: group.address, interface: DatagramEndpoint(address, port: 0).address)
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 65536, alignment: 16)
    Role.tell("ready")
    var last = monotonicNanoseconds()
    var bytes = 0
    var sources = [
      pollfd(fd: socket.descriptor.raw, events: Int16(POLLIN), revents: 0),
      pollfd(fd: STDIN_FILENO, events: Int16(POLLIN), revents: 0),
    ]
    while poll(&sources, 2, -1) > 0, sources[1].revents == 0 {
      var came = 0
      while true {
        let count = recv(socket.descriptor.raw, buffer.baseAddress!, buffer.count, 0)
        if count <= header { break }
        came += count - header
      }
      if came > 0 { last = monotonicNanoseconds() }
      bytes += came
    }
    Role.done(bytes, at: last)
  }
}

/// The image by a TCP stream to each receiver, a thread each. Receivers count and forget.
enum StreamRole {
  private static let port: UInt16 = 7778

  static func send(image path: String, to addresses: [String]) throws {
    nonisolated(unsafe) let image = try MappedFile(path).bytes
    let streams = try addresses.map { address -> Int32 in
      let stream = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
      var to = try endpoint(address)
      let size = socklen_t(MemoryLayout<sockaddr_in>.size)
      let isConnected = withUnsafePointer(to: &to) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(stream, $0, size) == 0 }
      }
      guard isConnected else { throw BenchError("no connection to \(address)") }
      return stream
    }
    Role.tell("ready")
    Role.waitForGo()
    let threads = streams.map { stream in
      Thread {
        var at = 0
        while at < image.count {
          let sent = Glibc.send(stream, image.baseAddress! + at, min(1 << 20, image.count - at), 0)
          if sent <= 0 { return }
          at += sent
        }
      }
    }
    threads.forEach { $0.start() }
    _ = readLine()
  }

  static func receive(address: String, bytes: Int) throws {
    let door = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    var one: Int32 = 1  // the transfer before may have left a connection that is being closed
    setsockopt(door, SOL_SOCKET, SO_REUSEADDR, &one, 4)
    var local = try endpoint(address)
    let size = socklen_t(MemoryLayout<sockaddr_in>.size)
    let isBound = withUnsafePointer(to: &local) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(door, $0, size) == 0 }
    }
    guard isBound, listen(door, 1) == 0 else { throw BenchError("cannot listen at \(address)") }
    Role.tell("ready")
    let stream = accept(door, nil, nil)
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 16)
    var came = 0
    while came < bytes {
      let count = recv(stream, buffer.baseAddress!, buffer.count, 0)
      if count <= 0 { throw BenchError("the stream ended after \(came) bytes") }
      came += count
    }
    Role.done(came)
    _ = readLine()
  }

  private static func endpoint(_ address: String) throws -> sockaddr_in {
    let parsed = try DatagramEndpoint(address, port: port)
    return sockaddr_in(
      sin_family: sa_family_t(AF_INET), sin_port: port.bigEndian,
      sin_addr: in_addr(s_addr: parsed.address.bigEndian), sin_zero: (0, 0, 0, 0, 0, 0, 0, 0))
  }
}
