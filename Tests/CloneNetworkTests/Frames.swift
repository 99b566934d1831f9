import CloneNetwork

/// Frames as they are on the wire.
///
///     Ethernet  destination 6 │ source 6 │ type 2 │ payload
typealias Frame = [UInt8]

let broadcast = MACAddress("ff:ff:ff:ff:ff:ff")!

func ethernet(to: MACAddress, from: MACAddress, type: UInt16, _ payload: [UInt8]) -> Frame {
  to.bytes + from.bytes + two(type) + payload
}

/// The same frame with an 802.1Q tag before its type.
func tagged(_ frame: Frame, vlan: UInt16, type: UInt16 = 0x8100) -> Frame {
  Array(frame[..<12]) + two(type) + two(vlan) + Array(frame[12...])
}

/// operation 1: request, 2: reply.
func arp(
  _ operation: UInt16, sender: MACAddress, _ senderAddress: IPv4Address, target: MACAddress,
  _ targetAddress: IPv4Address
) -> [UInt8] {
  [0, 1, 8, 0, 6, 4] + two(operation) + sender.bytes + senderAddress.bytes + target.bytes
    + targetAddress.bytes
}

func ipv4(from: IPv4Address, to: IPv4Address, transport: UInt8, _ payload: [UInt8]) -> [UInt8] {
  var header: [UInt8] =
    [0x45, 0] + two(UInt16(20 + payload.count)) + [0, 1, 0, 0, 64, transport, 0, 0] + from.bytes + to.bytes
  header.replaceSubrange(10..<12, with: two(checksum(header)))
  return header + payload
}

/// Without a checksum, which IPv4 allows.
func udp(from: UInt16, to: UInt16, _ payload: [UInt8]) -> [UInt8] {
  two(from) + two(to) + two(UInt16(8 + payload.count)) + [0, 0] + payload
}

func echoRequest(_ sequence: UInt16) -> [UInt8] {
  var message: [UInt8] = [8, 0, 0, 0, 0x5F, 0x5F] + two(sequence) + Array("snowfork".utf8)
  message.replaceSubrange(2..<4, with: two(checksum(message)))
  return message
}

/// A message of IPv6 neighbour discovery, from and to link-local addresses. 134: router, 136: neighbour advertisement.
func neighbourDiscovery(type: UInt8) -> [UInt8] {
  let source: [UInt8] = [0xFE, 0x80] + [UInt8](repeating: 0, count: 13) + [0x66]
  let everybody: [UInt8] = [0xFF, 0x02] + [UInt8](repeating: 0, count: 13) + [1]
  var body: [UInt8] = [type, 0, 0, 0] + [UInt8](repeating: 0, count: type == 134 ? 12 : 20)
  let pseudo = source + everybody + [0, 0] + two(UInt16(body.count)) + [0, 0, 0, 58]
  body.replaceSubrange(2..<4, with: two(checksum(pseudo + body)))
  return [0x60, 0, 0, 0] + two(UInt16(body.count)) + [58, 255] + source + everybody + body
}

/// What a frame says, as far as tests ask.
struct ParsedFrame {
  var type: UInt16
  var from: MACAddress
  /// Of the network packet.
  private let packet: [UInt8]

  init?(_ frame: Frame) {
    guard frame.count >= 14 else { return nil }
    from = MACAddress(bytes: Array(frame[6..<12]))!
    type = UInt16(frame[12]) << 8 | UInt16(frame[13])
    packet = Array(frame[14...])
  }

  /// Who asks for whom; nil: it is no ARP request.
  var question: (asker: MACAddress, askerAddress: IPv4Address, wanted: IPv4Address)? {
    guard type == 0x0806, packet.count >= 28, packet[7] == 1 else { return nil }
    return (MACAddress(bytes: Array(packet[8..<14]))!, address(14), address(24))
  }

  /// Nil: it is no IPv4 packet of this protocol.
  func ipv4(_ transport: UInt8) -> (from: IPv4Address, to: IPv4Address, payload: [UInt8])? {
    guard type == 0x0800, packet.count >= 28, packet[9] == transport else { return nil }
    let length = Int(packet[2]) << 8 | Int(packet[3])
    return (address(12), address(16), Array(packet[20..<min(length, packet.count)]))
  }

  var udp: (from: IPv4Address, fromPort: UInt16, to: IPv4Address, toPort: UInt16, payload: [UInt8])? {
    ipv4(17).map { packet in
      let words = packet.payload
      return (
        packet.from, UInt16(words[0]) << 8 | UInt16(words[1]), packet.to,
        UInt16(words[2]) << 8 | UInt16(words[3]),
        Array(words[8...])
      )
    }
  }

  private func address(_ offset: Int) -> IPv4Address {
    IPv4Address(number: packet[offset..<(offset + 4)].reduce(0) { $0 << 8 | UInt32($1) })
  }
}

private func two(_ value: UInt16) -> [UInt8] { [UInt8(value >> 8), UInt8(value & 0xFF)] }

private func checksum(_ bytes: [UInt8]) -> UInt16 {
  var sum: UInt32 = 0
  for index in stride(from: 0, to: bytes.count, by: 2) {
    sum += UInt32(bytes[index]) << 8 | (index + 1 < bytes.count ? UInt32(bytes[index + 1]) : 0)
  }
  while sum > 0xFFFF { sum = sum & 0xFFFF + sum >> 16 }
  return ~UInt16(sum)
}
