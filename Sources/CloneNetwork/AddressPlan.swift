/// Who has which address in a family's subnet.
///
///     number   0        1         2             3 …            last
///     who      network  gateway   the device    vmid 1, 2, …   broadcast
///                                 VM (vmid 0)
///
/// A MAC address follows from the IPv4 address: `02:5f:` and its four bytes. So nobody has to ask for either, and a
/// gateway looks the same on each host: what a clone remembers of its parent's gateway holds where the clone is.
public struct AddressPlan: Sendable {
  public let subnet: IPv4Subnet

  /// Nil: the subnet has no room for a gateway, a device VM and a clone, that is, more than 29 bits; or it is larger
  /// than /8.
  public init?(_ subnet: IPv4Subnet) {
    guard (8...29).contains(subnet.prefixLength) else { return nil }
    self.subnet = subnet
  }

  public var gateway: IPv4Address { IPv4Address(number: subnet.base.number + 1) }
  public var broadcast: IPv4Address { subnet.last }

  /// The highest vmid that has an address: 65,532 in a /16.
  public var vmidMax: Int { Int(subnet.count) - 4 }

  /// Of vmid 0, the device VM, or a clone. Nil: the subnet has no such address.
  public func address(vmid: Int) -> IPv4Address? {
    (0...vmidMax).contains(vmid) ? IPv4Address(number: subnet.base.number + 2 + UInt32(vmid)) : nil
  }

  /// Whose address it is; nil: reserved, or not of this subnet.
  public func vmid(of address: IPv4Address) -> Int? {
    guard subnet.contains(address), address.number >= subnet.base.number + 2, address != broadcast else {
      return nil
    }
    return Int(address.number - subnet.base.number) - 2
  }

  /// The MAC address that goes with an IPv4 address: a locally administered one.
  public static func mac(of address: IPv4Address) -> MACAddress {
    MACAddress(bytes: [0x02, 0x5F] + address.bytes)!
  }
}
