import CLibnl
import Glibc
import LinuxSystem

/// A gratuitous ARP request: so who hears it knows where the address is (RFC 5227, section 3).
struct Announcement {
  private let frame: [UInt8]

  init(_ binding: TapBinding) {
    let (mac, address) = (binding.mac.bytes, binding.address.bytes)
    let broadcast = [UInt8](repeating: 0xFF, count: 6)
    // Ethernet header; ARP for Ethernet and IPv4, a request; sender, target.
    frame =
      broadcast + mac + [0x08, 0x06] + [0, 1, 0x08, 0, 6, 4, 0, 1] + mac + address
      + [0, 0, 0, 0, 0, 0] + address
  }

  /// Of the calling thread's namespace. Protocol 0: nothing is received (packet(7)).
  static func socket() throws(SystemError) -> OwnedDescriptor {
    let type = CInt(SOCK_RAW.rawValue) | CInt(SOCK_CLOEXEC.rawValue)
    return OwnedDescriptor(
      taking: try systemCall("socket", subject: "packet") { Glibc.socket(AF_PACKET, type, 0) })
  }

  func send(by socket: OwnedDescriptor, interface: CInt) throws(SystemError) {
    var target = sockaddr_ll()
    target.sll_family = sa_family_t(AF_PACKET)
    target.sll_ifindex = interface
    target.sll_halen = 6
    target.sll_addr = (0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0)
    _ = try systemCall("sendto", subject: "interface \(interface)") {
      withUnsafePointer(to: &target) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          CInt(sendto(socket.raw, frame, frame.count, 0, $0, socklen_t(MemoryLayout<sockaddr_ll>.size)))
        }
      }
    }
  }
}
