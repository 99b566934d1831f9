import CloneNetwork
import Foundation
import Glibc
import LinuxSystem
import Testing

/// A VM as the network sees it: a program that has the tap open. It says what it likes, and answers ARP requests for
/// its address when it reads.
final class TestGuest {
  let tap: String
  let mac: MACAddress
  let address: IPv4Address
  let plan: AddressPlan
  /// Who was said to be where, by whom: what hosts tell each other.
  private(set) var announced: [IPv4Address: MACAddress] = [:]
  private let descriptor: OwnedDescriptor

  /// Opens the tap, and waits until the bridge forwards for it.
  init(_ host: TestHost, tap: String, _ family: FamilyNetwork, vmid: Int) throws {
    self.tap = tap
    plan = AddressPlan(family.subnet)!
    address = plan.address(vmid: vmid)!
    mac = AddressPlan.mac(of: address)
    descriptor = try host.namespace.run { try TapDevice.open(tap) }
    try descriptor.setNonBlocking()
    let isForwarding = try eventually { try host.tool("bridge link show dev \(tap)").contains("forwarding") }
    #expect(isForwarding)
  }

  func send(_ frame: Frame) throws { try frame.withUnsafeBytes { try descriptor.writeFully($0) } }

  /// A datagram with everything as it should be.
  func sendUDP(
    to: TestGuest, _ payload: String, from source: UInt16 = 5000, port: UInt16 = 6000
  ) throws {
    try send(udpFrame(to: to.mac, to.address, payload, from: source, port: port))
  }

  func udpFrame(
    to mac: MACAddress, _ address: IPv4Address, _ payload: String, from source: UInt16 = 5000,
    port: UInt16 = 6000
  ) -> Frame {
    ethernet(
      to: mac, from: self.mac, type: 0x0800,
      ipv4(
        from: self.address, to: address, transport: 17, udp(from: source, to: port, Array(payload.utf8))))
  }

  /// Sends to an address outside, through the gateway.
  func sendOutward(to: IPv4Address, port: UInt16, _ payload: String, from source: UInt16 = 5000) throws {
    try send(
      udpFrame(to: AddressPlan.mac(of: plan.gateway), to, payload, from: source, port: port))
  }

  /// The next frame; nil: none came. The wait is generous, for what must come; for what must not come do not wait but
  /// have something else sent behind it.
  func receive(milliseconds: CInt = 10_000) throws -> Frame? {
    var buffer = [UInt8](repeating: 0, count: 70_000)
    while true {
      var poll = pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0)
      guard Glibc.poll(&poll, 1, milliseconds) > 0 else { return nil }
      let count = try buffer.withUnsafeMutableBytes { try descriptor.read(into: $0) }
      let frame = Array(buffer[..<count])
      guard let question = ParsedFrame(frame)?.question else { return frame }
      if question.wanted == question.askerAddress {
        announced[question.wanted] = question.asker
        continue
      }
      guard question.wanted == address else { return frame }
      let answer = arp(2, sender: mac, address, target: question.asker, question.askerAddress)
      try send(ethernet(to: question.asker, from: mac, type: 0x0806, answer))
    }
  }

  /// Reads up to a datagram with this text; the frames that came before it.
  func receive(upTo payload: String, _ location: SourceLocation = #_sourceLocation) throws -> [Frame] {
    var before: [Frame] = []
    while let frame = try receive() {
      if ParsedFrame(frame)?.udp?.payload == Array(payload.utf8) { return before }
      before.append(frame)
    }
    Issue.record("\(payload) did not come; but \(before.count) other frames", sourceLocation: location)
    return before
  }
}

/// A UDP socket in a network namespace.
final class TestSocket {
  private let descriptor: OwnedDescriptor

  /// Bound to `port` of all addresses, or of one; 0: one that is free.
  init(_ namespace: NetworkNamespace, address: IPv4Address = IPv4Address(number: 0), port: UInt16) throws {
    descriptor = try namespace.run {
      OwnedDescriptor(taking: try systemCall("socket") { socket(AF_INET, CInt(SOCK_DGRAM.rawValue), 0) })
    }
    var local = Self.name(address, port)
    _ = try withUnsafePointer(to: &local) {
      try $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { name in
        try systemCall("bind") { bind(descriptor.raw, name, socklen_t(MemoryLayout<sockaddr_in>.size)) }
      }
    }
    // Room for all that a test sends at once.
    var bytes: CInt = 16 << 20
    setsockopt(descriptor.raw, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, 4)
  }

  func send(_ text: String, to address: IPv4Address, port: UInt16) throws {
    try send(Array(text.utf8), to: address, port: port)
  }

  func send(_ bytes: [UInt8], to address: IPv4Address, port: UInt16) throws {
    var remote = Self.name(address, port)
    _ = try withUnsafePointer(to: &remote) {
      try $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { name in
        try systemCall("sendto") {
          sendto(descriptor.raw, bytes, bytes.count, 0, name, socklen_t(MemoryLayout<sockaddr_in>.size))
        }
      }
    }
  }

  /// The next datagram and who sent it; nil: none came.
  func receive(milliseconds: CInt = 10_000) throws -> (text: String, from: IPv4Address, port: UInt16)? {
    var poll = pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0)
    guard Glibc.poll(&poll, 1, milliseconds) > 0 else { return nil }
    var buffer = [UInt8](repeating: 0, count: 70_000)
    var remote = sockaddr_in()
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let count = try withUnsafeMutablePointer(to: &remote) {
      try $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { name in
        try systemCall("recvfrom") { recvfrom(descriptor.raw, &buffer, buffer.count, 0, name, &length) }
      }
    }
    return (
      String(decoding: buffer[..<count], as: UTF8.self),
      IPv4Address(number: remote.sin_addr.s_addr.bigEndian),
      remote.sin_port.bigEndian
    )
  }

  private static func name(_ address: IPv4Address, _ port: UInt16) -> sockaddr_in {
    var name = sockaddr_in()
    name.sin_family = sa_family_t(AF_INET)
    name.sin_addr.s_addr = address.number.bigEndian
    name.sin_port = port.bigEndian
    return name
  }
}
