import CloneNetwork
import Foundation
import Glibc
import LinuxSystem

/// A network namespace with two open taps that reach each other. One thread writes and reads: what is measured is the
/// kernel's way of a frame, without wake-ups and without a guest, which would make both ways longer by the same.
final class Wire {
  struct End {
    var tap: OwnedDescriptor
    var mac: MACAddress
    var address: IPv4Address
  }

  let name: String
  let namespace: NetworkNamespace
  let ends: [End]
  private let header: [UInt8]

  /// `segments`: as a guest with TSO speaks, 64 KiB at once with the virtio header; else bare frames.
  init(
    _ kind: String, segments: Bool, make: (_ name: String, _ namespace: NetworkNamespace) throws -> [String]
  ) throws {
    name = "sfbn\(getpid())-\(kind)"
    namespace = try NetworkNamespace.make(named: name)
    let taps: [String]
    do { taps = try make(name, namespace) } catch {
      try NetworkNamespace.remove(named: name)
      throw error
    }
    let plan = AddressPlan(IPv4Subnet("10.111.0.0/16")!)!
    ends = try taps.enumerated().map { [namespace] vmid, tap in
      let descriptor = try namespace.run {
        let descriptor = try TapDevice.open(tap, virtioHeader: segments)
        if segments { try TapDevice.acceptSegments(descriptor) }
        return descriptor
      }
      let address = plan.address(vmid: vmid)!
      return End(tap: descriptor, mac: AddressPlan.mac(of: address), address: address)
    }
    // NEEDS_CSUM, TCPV4, 54 bytes of headers, segments of 1396 bytes; the checksum at byte 16 of the TCP header.
    header = segments ? [1, 1, 54, 0, 0x74, 5, 34, 0, 16, 0] : []
    // The bridge takes a moment until it forwards for a port that has just got its carrier.
    for _ in 0..<200 where try !passes() { usleep(10_000) }
  }

  func remove() throws { try NetworkNamespace.remove(named: name) }

  /// A frame from one end to the other, `bytes` long with its Ethernet header.
  func frame(from: Int, bytes: Int) -> [UInt8] {
    let (source, target) = (ends[from], ends[1 - from])
    let length = UInt16(bytes - 14)
    var packet: [UInt8] =
      [0x45, 0, UInt8(length >> 8), UInt8(length & 0xFF), 0, 1, 0x40, 0, 64, 6, 0, 0] + source.address.bytes
      + target.address.bytes
    var sum: UInt32 = 0
    for index in stride(from: 0, to: 20, by: 2) {
      sum += UInt32(packet[index]) << 8 | UInt32(packet[index + 1])
    }
    while sum > 0xFFFF { sum = sum & 0xFFFF + sum >> 16 }
    packet[10] = UInt8(~sum >> 8 & 0xFF)
    packet[11] = UInt8(~sum & 0xFF)
    // TCP: ports, numbers, 20 bytes of header, ACK.
    packet +=
      [0x13, 0x88, 0x17, 0x70] + [UInt8](repeating: 0, count: 8) + [0x50, 0x10, 0xFF, 0xFF, 0, 0, 0, 0]
    let rest = [UInt8](repeating: 0x5F, count: bytes - 14 - packet.count)
    return header + target.mac.bytes + source.mac.bytes + [8, 0] + packet + rest
  }

  private func passes() throws -> Bool {
    for end in ends { try end.tap.setNonBlocking() }
    try send(frame(from: 0, bytes: 100), from: 0)
    return receive(at: 1) > 0
  }

  func send(_ frame: [UInt8], from: Int) throws {
    try frame.withUnsafeBytes { try ends[from].tap.writeFully($0) }
  }

  private let buffer = UnsafeMutableRawPointer.allocate(byteCount: 70_000, alignment: 16)

  /// The length of the frame; -1: there is none.
  func receive(at end: Int) -> Int { read(ends[end].tap.raw, buffer, 70_000) }

  /// Nothing waits to be read, as a frame of the host's own might.
  private func drain() {
    for end in ends.indices { while receive(at: end) > 0 {} }
  }

  /// Seconds for `count` frames one way, 32 at a time; nil: some were lost.
  func oneWay(_ count: Int, bytes: Int) throws -> Double? {
    let frame = frame(from: 0, bytes: bytes)
    drain()
    let start = monotonicNanoseconds()
    var received = 0
    for _ in 0..<(count / 32) {
      for _ in 0..<32 { try send(frame, from: 0) }
      while receive(at: 1) > 0 { received += 1 }
    }
    let seconds = Double(monotonicNanoseconds() - start) / 1e9
    return received >= count / 32 * 32 ? seconds : nil
  }

  /// Seconds for `count` frames there and back.
  func roundTrips(_ count: Int, bytes: Int) throws -> Double? {
    let (there, back) = (frame(from: 0, bytes: bytes), frame(from: 1, bytes: bytes))
    drain()
    let start = monotonicNanoseconds()
    for _ in 0..<count {
      try send(there, from: 0)
      guard receive(at: 1) > 0 else { return nil }
      try send(back, from: 1)
      guard receive(at: 0) > 0 else { return nil }
    }
    return Double(monotonicNanoseconds() - start) / 1e9
  }

  /// The same with a thread at the far end that sleeps until a frame comes, as a VM's does.
  func echoes(_ count: Int, bytes: Int) throws -> Double? {
    let (there, back) = (frame(from: 0, bytes: bytes), frame(from: 1, bytes: bytes))
    let far = ends[1].tap
    let thread = try NamedThread("echo") {
      var buffer = [UInt8](repeating: 0, count: 2048)
      for _ in 0..<count {
        var readable = pollfd(fd: far.raw, events: Int16(POLLIN), revents: 0)
        guard poll(&readable, 1, 1000) > 0, read(far.raw, &buffer, buffer.count) > 0 else { return }
        _ = back.withUnsafeBytes { write(far.raw, $0.baseAddress, $0.count) }
      }
    }
    defer { thread.join() }
    drain()
    let start = monotonicNanoseconds()
    for _ in 0..<count {
      try send(there, from: 0)
      var readable = pollfd(fd: ends[0].tap.raw, events: Int16(POLLIN), revents: 0)
      guard poll(&readable, 1, 1000) > 0, receive(at: 0) > 0 else { return nil }
    }
    return Double(monotonicNanoseconds() - start) / 1e9
  }
}
