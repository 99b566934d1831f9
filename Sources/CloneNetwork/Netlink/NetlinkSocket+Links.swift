import CLibnl
import Glibc

/// Interfaces.
extension NetlinkSocket {
  struct Link {
    var index: CInt
    var name: String
    var alias: String?
    /// Index of the bridge; 0: none.
    var master: CInt
    var mtu: Int
    var isUp: Bool
    /// `bridge`, `vxlan`, `veth`, `tun`; empty for a real one.
    var kind: String
    var vxlan: VXLAN?
  }

  struct VXLAN: Equatable {
    var vni: UInt32
    var local: IPv4Address
    var port: UInt16
  }

  func links() throws(NetlinkFailure) -> [Link] {
    try dump { NetlinkMessage(RTM_GETLINK, flags: NLM_F_DUMP, header: ifinfomsg()) }.compactMap(Self.link)
  }

  /// Nil: there is none of that name.
  func link(_ name: String) throws(NetlinkFailure) -> Link? {
    let message = NetlinkMessage(RTM_GETLINK, header: ifinfomsg())
    message.put(IFLA_IFNAME, name)
    do { return try ask(message).flatMap(Self.link) } catch {
      if error.isMissing { return nil }
      throw error
    }
  }

  private static func link(_ answer: Answer) -> Link? {
    guard Int(answer.type) == Int(RTM_NEWLINK), let header = answer.header(ifinfomsg.self) else { return nil }
    let attributes = answer.attributes(after: ifinfomsg.self)
    guard let name = attributes.text(IFLA_IFNAME) else { return nil }
    let info = attributes.nested(IFLA_LINKINFO)
    let kind = info.text(IFLA_INFO_KIND) ?? ""
    var link = Link(
      index: header.ifi_index, name: name, alias: attributes.text(IFLA_IFALIAS),
      master: CInt(attributes.number(IFLA_MASTER) ?? 0), mtu: Int(attributes.number(IFLA_MTU) ?? 0),
      isUp: header.ifi_flags & UInt32(IFF_UP) != 0, kind: kind)
    if kind == "vxlan" {
      let data = info.nested(IFLA_INFO_DATA)
      link.vxlan = VXLAN(
        vni: data.number(IFLA_VXLAN_ID) ?? 0,
        local: data.address(IFLA_VXLAN_LOCAL) ?? IPv4Address(number: 0),
        port: data[IFLA_VXLAN_PORT].map { $0.reduce(0) { $0 << 8 | UInt16($1) } } ?? 0)
    }
    return link
  }

  /// A bridge that only forwards: no spanning tree, no multicast snooping, no address.
  func makeBridge(_ name: String) throws(NetlinkFailure) {
    try make(name, kind: "bridge") {
      $0.put(IFLA_BR_STP_STATE, UInt32(0))
      $0.put(IFLA_BR_FORWARD_DELAY, UInt32(0))
      $0.put(IFLA_BR_MCAST_SNOOPING, UInt8(0))
    }
  }

  /// A VXLAN interface that learns where addresses are, and sends the rest to whom its forwarding entries name.
  func makeVXLAN(_ name: String, _ vxlan: VXLAN) throws(NetlinkFailure) {
    try make(name, kind: "vxlan") {
      $0.put(IFLA_VXLAN_ID, vxlan.vni)
      $0.put(IFLA_VXLAN_LOCAL, vxlan.local)
      $0.put(IFLA_VXLAN_PORT, vxlan.port.bigEndian)
      $0.put(IFLA_VXLAN_LEARNING, UInt8(1))
    }
  }

  /// A cable of two interfaces; the far end is in the namespace of the descriptor.
  func makeVeth(_ name: String, peer: String, namespace: CInt) throws(NetlinkFailure) {
    try make(name, kind: "veth") { message in
      message.nest(VETH_INFO_PEER) {
        message.append(ifinfomsg())
        message.put(IFLA_IFNAME, peer)
        message.put(IFLA_NET_NS_FD, UInt32(namespace))
      }
    }
  }

  private func make(
    _ name: String, kind: String, _ data: (NetlinkMessage) -> Void
  ) throws(NetlinkFailure) {
    let message = NetlinkMessage(RTM_NEWLINK, flags: NLM_F_CREATE | NLM_F_EXCL, header: ifinfomsg())
    message.put(IFLA_IFNAME, name)
    message.nest(IFLA_LINKINFO) {
      message.put(IFLA_INFO_KIND, kind)
      message.nest(IFLA_INFO_DATA) { data(message) }
    }
    try request(message)
  }

  /// Sets what is given.
  func setLink(
    _ index: CInt, alias: String? = nil, mac: MACAddress? = nil, mtu: Int? = nil, master: CInt? = nil
  ) throws(NetlinkFailure) {
    var header = ifinfomsg()
    header.ifi_index = index
    let message = NetlinkMessage(RTM_SETLINK, header: header)
    if let alias { message.put(IFLA_IFALIAS, Array(alias.utf8)) }
    if let mac { message.put(IFLA_ADDRESS, mac) }
    if let mtu { message.put(IFLA_MTU, UInt32(mtu)) }
    if let master { message.put(IFLA_MASTER, UInt32(bitPattern: master)) }
    try request(message)
  }

  /// Switches it on, without an IPv6 address of the host.
  func setUp(_ index: CInt) throws(NetlinkFailure) {
    var header = ifinfomsg()
    header.ifi_index = index
    let quiet = NetlinkMessage(RTM_SETLINK, header: header)
    quiet.nest(IFLA_AF_SPEC) {
      quiet.nest(AF_INET6) {
        quiet.put(IFLA_INET6_ADDR_GEN_MODE, UInt8(IN6_ADDR_GEN_MODE_NONE.rawValue))
      }
    }
    do { try request(quiet) } catch {
      // The kernel has no IPv6.
      if error.code != -CInt(NLE_AF_NOSUPPORT) { throw error }
    }
    header.ifi_change = UInt32(IFF_UP)
    header.ifi_flags = UInt32(IFF_UP)
    try request(NetlinkMessage(RTM_SETLINK, header: header))
  }

  /// How a bridge treats one of its ports.
  struct PortSettings {
    /// Whether source addresses of its frames are remembered.
    var learns: Bool
    /// Whether frames come to it that are for all or for a group.
    var takesBroadcast: Bool
    /// Whether frames come to it whose address is not known.
    var takesUnknown: Bool
    /// Isolated ports do not reach each other.
    var isIsolated: Bool
  }

  func setPort(_ index: CInt, _ settings: PortSettings) throws(NetlinkFailure) {
    var header = ifinfomsg()
    header.ifi_family = UInt8(AF_BRIDGE)
    header.ifi_index = index
    let message = NetlinkMessage(RTM_SETLINK, header: header)
    message.nest(IFLA_PROTINFO) {
      message.put(IFLA_BRPORT_LEARNING, UInt8(settings.learns ? 1 : 0))
      message.put(IFLA_BRPORT_MCAST_FLOOD, UInt8(settings.takesBroadcast ? 1 : 0))
      message.put(IFLA_BRPORT_BCAST_FLOOD, UInt8(settings.takesBroadcast ? 1 : 0))
      message.put(IFLA_BRPORT_UNICAST_FLOOD, UInt8(settings.takesUnknown ? 1 : 0))
      message.put(IFLA_BRPORT_ISOLATED, UInt8(settings.isIsolated ? 1 : 0))
    }
    try request(message)
  }

  /// No error if it is gone already.
  func deleteLink(_ index: CInt) throws(NetlinkFailure) {
    var header = ifinfomsg()
    header.ifi_index = index
    do { try request(NetlinkMessage(RTM_DELLINK, header: header)) } catch {
      if !error.isMissing { throw error }
    }
  }

  /// All of them at once: the kernel waits some 20 ms until nobody looks at an interface any more, or at many.
  func deleteLinks(_ indices: [CInt]) throws(NetlinkFailure) {
    guard indices.count > 1 else {
      if let only = indices.first { try deleteLink(only) }
      return
    }
    // A group of interfaces that nothing else is in.
    let doomed: UInt32 = 0x5F00_DEAD
    for index in indices {
      var header = ifinfomsg()
      header.ifi_index = index
      let message = NetlinkMessage(RTM_SETLINK, header: header)
      message.put(IFLA_GROUP, doomed)
      do { try request(message) } catch { if !error.isMissing { throw error } }
    }
    let message = NetlinkMessage(RTM_DELLINK, header: ifinfomsg())
    message.put(IFLA_GROUP, doomed)
    do { try request(message) } catch { if !error.isMissing { throw error } }
  }
}
