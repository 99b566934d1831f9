import CGuest
import Glibc
import GuestWire

/// The VM's hardware and IPv4 address, on the guest's first interface that is not the loopback.
///
/// In a clone each kernel path costs milliseconds: what can be looked up and set in the device VM is, and inherited.
final class NetworkIdentity {
  private let interface: String
  private let index: Int32
  private var address: Address
  /// Goes off some time after a fork.
  private let timer: Int32
  /// Of the fork's time.
  private var hadConnections = true
  /// Addresses of before forks, as long as connections of them may be there.
  private var former: [UInt32] = []

  private static let lateMilliseconds: Int32 = 1000

  private struct Address: Equatable {
    /// In network order.
    var number: UInt32
    var prefix: Int32

    /// "10.0.0.2/24"
    init(_ text: String) throws {
      let parts = text.split(separator: "/")
      guard parts.count == 2, let number = parseIPv4(String(parts[0])), let prefix = Int32(parts[1]),
        (0...32).contains(prefix)
      else { throw Identity.Refusal("\"\(text)\" is no address with prefix length") }
      self.number = number
      self.prefix = prefix
    }
  }

  /// Of the device VM.
  init(_ network: GuestMessage.Network, loop: EventLoop) throws {
    guard let interface = namesIn("/sys/class/net").first(where: { $0 != "lo" }) else {
      throw Identity.Refusal("an address was given, and the VM has no network interface")
    }
    self.interface = interface
    index = try checked("interface index", cguest_interface_index(interface))
    address = try Address(network.ipAddress)
    timer = try checked("timer", cguest_timer())
    _ = try loop.add(timer, EventLoop.readable) { [unowned self] _ in
      var count: UInt64 = 0
      read(timer, &count, 8)
      endConnections()
    }
    // Families are IPv4 only: the host drops all else.
    try? TextFile("/proc/sys/net/ipv6/conf/\(interface)/disable_ipv6").replace("1\n")
    try checked("set address", cguest_add_address(index, address.number, address.prefix))
    try checked("interface up", cguest_set_interface_up(interface, 1))
    try setGateway(network.gateway)
  }

  /// Before a fork.
  func prepare() { hadConnections = cguest_count_connections(address.number) != 0 }

  /// The VM is a clone. Connections that were open at the fork are the parent's, and end here.
  func take(_ identity: GuestMessage.Identity) throws {
    guard let mac = Self.parseMAC(identity.macAddress) else {
      throw Identity.Refusal("\"\(identity.macAddress)\" is no MAC address")
    }
    let new = try Address(identity.ipAddress)
    former.append(address.number)
    try checked("remove address", cguest_remove_address(index, address.number, address.prefix))
    try checked("add address", cguest_add_address(index, new.number, new.prefix))
    address = new
    var result = cguest_set_mac(interface, mac)
    if result == -EBUSY {
      try checked("interface down", cguest_set_interface_up(interface, 0))
      result = cguest_set_mac(interface, mac)
      try checked("interface up", cguest_set_interface_up(interface, 1))
    }
    try checked("set MAC address", result)
    try setGateway(identity.gateway)
    // There was none a moment before the fork. One may have been made since; that has time.
    if hadConnections { endConnections() } else { cguest_start_timer(timer, Self.lateMilliseconds) }
  }

  private func endConnections() {
    for address in former {
      let result = cguest_destroy_connections(address)
      if result < 0 { log("connections of before the fork time out: \(SystemError("end them", -result))") }
    }
    former = []
  }

  private func setGateway(_ text: String) throws {
    if text.isEmpty { return }
    guard let gateway = parseIPv4(text) else { throw Identity.Refusal("\"\(text)\" is no gateway address") }
    try checked("set default route", cguest_set_default_route(index, gateway))
  }

  private static func parseMAC(_ text: String) -> [UInt8]? {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    let bytes = parts.compactMap { $0.utf8.count == 2 ? UInt8($0, radix: 16) : nil }
    return parts.count == 6 && bytes.count == 6 ? bytes : nil
  }
}

/// The result of a call that answers a negative errno.
@discardableResult
private func checked(_ operation: String, _ result: Int32) throws(SystemError) -> Int32 {
  if result < 0 { throw SystemError(operation, -result) }
  return result
}

private func parseIPv4(_ text: String) -> UInt32? {
  var address = in_addr()
  return inet_pton(AF_INET, text, &address) == 1 ? address.s_addr : nil
}
