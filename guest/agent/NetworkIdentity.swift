import CGuest
import Glibc
import GuestWire

/// The VM's hardware and IPv4 address, on the guest's first interface that is not the loopback.
///
/// In a clone each kernel path costs milliseconds: what can be set in the device VM is, and inherited. There the kernel
/// is told to announce a new hardware address by ARP.
enum NetworkIdentity {
  /// Of the device VM.
  static func setUp(_ network: GuestMessage.Network) throws {
    let interface = try interface()
    // Families are IPv4 only: the host drops all else.
    try? TextFile("/proc/sys/net/ipv6/conf/\(interface)/disable_ipv6").replace("1\n")
    try TextFile("/proc/sys/net/ipv4/conf/\(interface)/arp_notify").replace("1\n")
    try setAddress(network.ipAddress, of: interface)
    try check("interface up", cguest_set_interface_up(interface, 1))
    try setGateway(network.gateway)
  }

  /// Of a clone. Connections that were open at the fork are the parent's, and end here.
  static func take(_ identity: GuestMessage.Identity) throws {
    let interface = try interface()
    guard let mac = parseMAC(identity.macAddress) else {
      throw Identity.Refusal("\"\(identity.macAddress)\" is no MAC address")
    }
    let old = cguest_address(interface)
    // The hardware address last: the kernel announces both with it.
    try setAddress(identity.ipAddress, of: interface)
    var result = cguest_set_mac(interface, mac)
    if result == -EBUSY {
      // A driver that can not while the interface is up.
      try check("interface down", cguest_set_interface_up(interface, 0))
      result = cguest_set_mac(interface, mac)
      try check("interface up", cguest_set_interface_up(interface, 1))
    }
    try check("set MAC address", result)
    try setGateway(identity.gateway)
    let destroyed = cguest_destroy_connections(old)
    if destroyed < 0 { log("connections of before the fork time out: \(SystemError("end them", -destroyed))") }
  }

  private static func interface() throws -> String {
    guard let interface = namesIn("/sys/class/net").first(where: { $0 != "lo" }) else {
      throw Identity.Refusal("an address was given, and the VM has no network interface")
    }
    return interface
  }

  private static func setAddress(_ text: String, of interface: String) throws {
    guard let (address, netmask) = parseAddress(text) else {
      throw Identity.Refusal("\"\(text)\" is no address with prefix length")
    }
    try check("set address", cguest_set_address(interface, address, netmask))
  }

  private static func setGateway(_ text: String) throws {
    if text.isEmpty { return }
    guard let gateway = parseIPv4(text) else { throw Identity.Refusal("\"\(text)\" is no gateway address") }
    try check("set default route", cguest_add_default_route(gateway))
  }

  private static func check(_ operation: String, _ result: Int32) throws(SystemError) {
    if result < 0 { throw SystemError(operation, -result) }
  }

  private static func parseMAC(_ text: String) -> [UInt8]? {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    let bytes = parts.compactMap { $0.utf8.count == 2 ? UInt8($0, radix: 16) : nil }
    return parts.count == 6 && bytes.count == 6 ? bytes : nil
  }

  /// Address and netmask in network order.
  private static func parseAddress(_ text: String) -> (UInt32, UInt32)? {
    let parts = text.split(separator: "/")
    guard parts.count == 2, let address = parseIPv4(String(parts[0])),
      let length = UInt32(parts[1]), (0...32).contains(length)
    else { return nil }
    let netmask = length == 0 ? 0 : UInt32.max << (32 - length)
    return (address, netmask.bigEndian)
  }

  private static func parseIPv4(_ text: String) -> UInt32? {
    var address = in_addr()
    return inet_pton(AF_INET, text, &address) == 1 ? address.s_addr : nil
  }
}
