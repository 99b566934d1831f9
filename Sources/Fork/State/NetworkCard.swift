import CloneNetwork
import GRDB

/// The network that a device VM and its clones have for themselves, on whatever host they are.
struct Family: Codable, Sendable, Equatable {
  /// The device VM's name and eight random digits: no other family of the cluster has it.
  var id: String
  /// The device VM's name.
  var parent: String
  /// The host that gives out its addresses: the device VM's.
  var home: String
  /// VXLAN network identifier.
  var vni: UInt32
  /// `10.111.0.0/16`.
  var subnet: String
  /// Destinations outside; nil: none, and no gateway.
  var allowed: [String]?
  /// Bytes a second outward and inward, on each host; nil: no limit.
  var bytesPerSecond: UInt64?

  var plan: AddressPlan? { IPv4Subnet(subnet).flatMap { AddressPlan($0) } }

  /// Clones of the device VM have the numbers that their names end with. Those of its clones have the upper half.
  var directNumbers: ClosedRange<Int>? { plan.map { 1...max(1, $0.vmidMax / 2) } }

  /// The limit holds for what comes inward too.
  func outward(hasForwards: Bool) -> OutwardPolicy? {
    guard allowed != nil || hasForwards else { return nil }
    return .init(allowed: (allowed ?? []).compactMap { .init($0) }, bytesPerSecondMax: bytesPerSecond)
  }
}

/// A VM's network card.
struct NetworkCard: Codable, Sendable, Equatable {
  var family: Family
  /// In the address plan: 0 of the device VM, else of no other VM of the family.
  var number: Int
  /// Ports of its host that lead to it: `8080:80/tcp`. Of a device VM.
  var forwards: [String] = []

  var address: IPv4Address? { family.plan?.address(vmid: number) }
  var mac: MACAddress? { address.map { AddressPlan.mac(of: $0) } }

  /// `10.111.0.3/16`
  var addressText: String {
    guard let address, let subnet = IPv4Subnet(family.subnet) else { return "" }
    return "\(address)/\(subnet.prefixLength)"
  }

  /// Empty: there is none.
  var gatewayText: String {
    guard family.allowed != nil || !forwards.isEmpty, let plan = family.plan else { return "" }
    return "\(plan.gateway)"
  }
}

/// Which numbers a family's home has given to clones of clones. One row a family.
struct FamilyNumbers: Codable, Sendable, FetchableRecord, PersistableRecord {
  static let databaseTableName = "family"

  var id: String
  var first: Int
  var last: Int
  var next: Int

  init(_ family: Family, _ plan: AddressPlan) {
    id = family.id
    first = min(plan.vmidMax, plan.vmidMax / 2 + 1)
    last = plan.vmidMax
    next = first
  }

  /// One after the other. None is given twice, for nobody here knows who lives of those that were made elsewhere. Nil: not
  /// so many are left.
  mutating func take(_ count: Int) -> ClosedRange<Int>? {
    guard count > 0, next + count - 1 <= last else { return nil }
    defer { next += count }
    return next...next + count - 1
  }
}
