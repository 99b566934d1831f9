import CGuest
import Glibc
import GuestWire

/// A clone's own hardware and IPv4 address, on the guest's first interface that is not the loopback.
enum NetworkIdentity {
  static func take(_ identity: GuestMessage.Identity) throws {
    guard let interface = namesIn("/sys/class/net").first(where: { $0 != "lo" }) else {
      throw Identity.Refusal("an address was given, and the VM has no network interface")
    }
    if !identity.macAddress.isEmpty {
      guard let mac = parseMAC(identity.macAddress) else {
        throw Identity.Refusal("\"\(identity.macAddress)\" is no MAC address")
      }
      try check("interface down", cguest_set_interface_up(interface, 0))
      try check("set MAC address", cguest_set_mac(interface, mac))
    }
    if !identity.ipAddress.isEmpty {
      guard let (address, netmask) = parseAddress(identity.ipAddress) else {
        throw Identity.Refusal("\"\(identity.ipAddress)\" is no address with prefix length")
      }
      try check("set address", cguest_set_address(interface, address, netmask))
    }
    try check("interface up", cguest_set_interface_up(interface, 1))
    if !identity.gateway.isEmpty {
      guard let gateway = parseIPv4(identity.gateway) else {
        throw Identity.Refusal("\"\(identity.gateway)\" is no gateway address")
      }
      try check("set default route", cguest_add_default_route(gateway))
    }
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
