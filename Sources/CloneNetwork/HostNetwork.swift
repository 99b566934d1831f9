import LinuxSystem
import Synchronization

/// The family networks of one host, which is a network namespace.
///
/// The kernel's state is the truth, so that a process that dies takes nothing with it and its successor finds all:
/// it makes the families that live again, which changes nothing where nothing is wrong, and sweeps the rest away.
/// One process a host; any thread. Calls come one after the other and return when the kernel has done them. They
/// start no process and, but for making taps and routers, no thread.
public final class HostNetwork: Sendable {
  /// Orders all calls: netlink answers belong to the request before, and what is known to what was made.
  /// `HostNetworkTests.callsFromManyThreads` guards it.
  private let state: Mutex<HostState>

  /// Opens what it needs in the namespace that the file `namespace` stands for; nil: in the calling thread's. Reads
  /// what is there of families, and changes nothing.
  public init(namespace path: String? = nil) throws(NetworkError) {
    state = Mutex(try HostState(namespace: path))
  }

  /// Makes the family's network, or changes what differs: bridge, VXLAN to the peers, rules, router, port forwards.
  /// On failure a network that was not there is not there.
  public func make(_ family: FamilyNetwork) throws(NetworkError) {
    try state.withLock { state throws(NetworkError) in try state.make(family) }
  }

  /// Takes everything of the family away, its taps with it. No error if there is nothing.
  public func remove(family: String) throws(NetworkError) {
    try state.withLock { state throws(NetworkError) in try state.remove(family) }
  }

  /// Takes away what belongs to no family of these, whoever made it. With `vms`, taps of other VMs than these too.
  /// When no family is left, nothing of ours is: no interface, table, route, namespace, and packets are not forwarded
  /// if they had not been before.
  public func sweep(keeping families: Set<String>, vms: Set<String>? = nil) throws(NetworkError) {
    try state.withLock { state throws(NetworkError) in try state.sweep(keeping: families, vms: vms) }
  }

  /// Makes a tap for a VM, or returns the one there is with its binding. A new one is not bound: nothing that comes
  /// from it goes anywhere, nothing goes to it. It stays until it is removed, whether a VM has it open or not.
  /// `owner` is the user who may open it without being root; root opens it for libvirt's QEMUs.
  public func addTap(vm: String, family: String, owner: UInt32? = nil) throws(NetworkError) -> TapInterface {
    try state.withLock { state throws(NetworkError) in
      try state.addTap(vm: vm, family: family, owner: owner)
    }
  }

  /// From its return on, frames that have this MAC and this IPv4 address pass the tap, in place of those allowed
  /// before. Some 0.1 ms.
  public func bind(tap: String, mac: MACAddress, address: IPv4Address) throws(NetworkError) {
    try state.withLock { state throws(NetworkError) in
      try state.bind(tap, TapBinding(mac: mac, address: address))
    }
  }

  /// As after `addTap`. No error if it was not bound.
  public func unbind(tap: String) throws(NetworkError) {
    try state.withLock { state throws(NetworkError) in try state.unbind(tap) }
  }

  /// Takes taps away, also from VMs that have them open: their network cards then have no carrier. No error for one
  /// that is not there. Many take as long as one, some 20 ms.
  public func removeTaps(_ taps: [String]) throws(NetworkError) {
    try state.withLock { state throws(NetworkError) in try state.removeTaps(taps) }
  }

  /// The taps there are of a family.
  public func taps(family: String) -> [TapInterface] {
    state.withLock { state in
      state.taps.values.filter { $0.family == family }.sorted { $0.vm < $1.vm }
    }
  }

  /// The families there are, also those that another process made.
  public var families: [String] { state.withLock { $0.families.keys.sorted() } }
}

/// Who may speak from a tap.
public struct TapBinding: Sendable, Hashable {
  public var mac: MACAddress
  public var address: IPv4Address

  public init(mac: MACAddress, address: IPv4Address) {
    self.mac = mac
    self.address = address
  }
}

/// The host's end of a VM's network card.
public struct TapInterface: Sendable, Equatable {
  /// Of the interface, for `<target dev='…' managed='no'/>`.
  public let name: String
  public let family: String
  public let vm: String
  /// Nil: nobody may.
  public internal(set) var binding: TapBinding?
  /// The kernel's number for the interface.
  var index: CInt
}
