import CLibnl
import Glibc

/// Where frames go: entries of bridges and of VXLAN interfaces; and where packets go.
extension NetlinkSocket {
  private static let everybody = MACAddress(bytes: [0, 0, 0, 0, 0, 0])!

  /// Frames for `mac` go to this port of its bridge, and to no other.
  func setStation(_ mac: MACAddress, port: CInt) throws(NetlinkFailure) {
    try request(station(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, mac, port))
  }

  /// No error if there is no such entry.
  func deleteStation(_ mac: MACAddress, port: CInt) throws(NetlinkFailure) {
    do { try request(station(RTM_DELNEIGH, 0, mac, port)) } catch {
      if !error.isMissing { throw error }
    }
  }

  private func station(
    _ type: some BinaryInteger, _ flags: CInt, _ mac: MACAddress, _ port: CInt
  ) -> NetlinkMessage {
    // NUD_NOARP: static. NUD_PERMANENT would mean the host itself.
    let header = neighbour(port, state: NUD_NOARP, flags: NTF_MASTER)
    let message = NetlinkMessage(type, flags: flags, header: header)
    message.put(NDA_LLADDR, mac)
    return message
  }

  private func neighbour(_ index: CInt, state: some BinaryInteger, flags: some BinaryInteger) -> ndmsg {
    var header = ndmsg()
    header.ndm_family = UInt8(AF_BRIDGE)
    header.ndm_ifindex = index
    header.ndm_state = UInt16(state)
    header.ndm_flags = UInt8(flags)
    return header
  }

  /// A place where a VXLAN interface sends frames of one address.
  struct RemoteStation {
    var mac: MACAddress
    var host: IPv4Address
    /// Frames for all go there, and those whose place is not known.
    var isForEverybody: Bool { mac == NetlinkSocket.everybody }
  }

  func remoteStations(vxlan index: CInt) throws(NetlinkFailure) -> [RemoteStation] {
    var header = ifinfomsg()
    header.ifi_family = UInt8(AF_BRIDGE)
    header.ifi_index = index
    return try dump { NetlinkMessage(RTM_GETNEIGH, flags: NLM_F_DUMP, header: header) }.compactMap { answer in
      guard Int(answer.type) == Int(RTM_NEWNEIGH), let entry = answer.header(ndmsg.self),
        entry.ndm_ifindex == index, entry.ndm_flags & UInt8(NTF_SELF) != 0
      else { return nil }
      let attributes = answer.attributes(after: ndmsg.self)
      guard let mac = attributes[NDA_LLADDR].flatMap({ MACAddress(bytes: Array($0)) }),
        let host = attributes.address(NDA_DST)
      else { return nil }
      return RemoteStation(mac: mac, host: host)
    }
  }

  /// Frames for all go to this host too.
  func addReplica(vxlan index: CInt, host: IPv4Address) throws(NetlinkFailure) {
    do {
      try request(
        remote(
          RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_APPEND, index, RemoteStation(mac: Self.everybody, host: host)))
    } catch {
      if !error.isExisting { throw error }
    }
  }

  /// No error if there is no such entry.
  func deleteRemote(vxlan index: CInt, _ station: RemoteStation) throws(NetlinkFailure) {
    do { try request(remote(RTM_DELNEIGH, 0, index, station)) } catch {
      if !error.isMissing { throw error }
    }
  }

  private func remote(
    _ type: some BinaryInteger, _ flags: CInt, _ index: CInt, _ station: RemoteStation
  ) -> NetlinkMessage {
    let header = neighbour(index, state: NUD_PERMANENT | NUD_NOARP, flags: NTF_SELF)
    let message = NetlinkMessage(type, flags: flags, header: header)
    message.put(NDA_LLADDR, station.mac)
    message.put(NDA_DST, station.host)
    return message
  }

  // MARK: packets

  /// The IPv4 addresses of the namespace, each with its interface's index.
  func addresses() throws(NetlinkFailure) -> [(index: CInt, address: IPv4Address, prefixLength: Int)] {
    var header = ifaddrmsg()
    header.ifa_family = UInt8(AF_INET)
    return try dump { NetlinkMessage(RTM_GETADDR, flags: NLM_F_DUMP, header: header) }.compactMap { answer in
      guard Int(answer.type) == Int(RTM_NEWADDR), let entry = answer.header(ifaddrmsg.self) else {
        return nil
      }
      return answer.attributes(after: ifaddrmsg.self).address(IFA_LOCAL).map {
        (CInt(entry.ifa_index), $0, Int(entry.ifa_prefixlen))
      }
    }
  }

  /// No error if it is there.
  func addAddress(_ address: IPv4Address, prefixLength: Int, index: CInt) throws(NetlinkFailure) {
    var header = ifaddrmsg()
    header.ifa_family = UInt8(AF_INET)
    header.ifa_prefixlen = UInt8(prefixLength)
    header.ifa_index = UInt32(index)
    let message = NetlinkMessage(RTM_NEWADDR, flags: NLM_F_CREATE | NLM_F_REPLACE, header: header)
    message.put(IFA_LOCAL, address)
    message.put(IFA_ADDRESS, address)
    try request(message)
  }

  func deleteAddress(_ address: IPv4Address, prefixLength: Int, index: CInt) throws(NetlinkFailure) {
    var header = ifaddrmsg()
    header.ifa_family = UInt8(AF_INET)
    header.ifa_prefixlen = UInt8(prefixLength)
    header.ifa_index = UInt32(index)
    let message = NetlinkMessage(RTM_DELADDR, header: header)
    message.put(IFA_LOCAL, address)
    do { try request(message) } catch { if !error.isMissing { throw error } }
  }

  /// Packets for the subnet leave by the interface, from this address: what the kernel itself adds with an address,
  /// and nobody when somebody has deleted it.
  func setLocalRoute(
    _ subnet: IPv4Subnet, source: IPv4Address, index: CInt
  ) throws(NetlinkFailure) {
    let message = route(
      prefixLength: subnet.prefixLength, protocol: RTPROT_KERNEL, scope: RT_SCOPE_LINK.rawValue)
    message.put(RTA_DST.rawValue, subnet.base)
    message.put(RTA_PREFSRC.rawValue, source)
    message.put(RTA_OIF.rawValue, UInt32(bitPattern: index))
    try request(message)
  }

  func setDefaultRoute(gateway: IPv4Address, index: CInt) throws(NetlinkFailure) {
    let message = route(prefixLength: 0, protocol: RTPROT_STATIC, scope: RT_SCOPE_UNIVERSE.rawValue)
    message.put(RTA_GATEWAY.rawValue, gateway)
    message.put(RTA_OIF.rawValue, UInt32(bitPattern: index))
    try request(message)
  }

  private func route(prefixLength: Int, protocol source: some BinaryInteger, scope: UInt32) -> NetlinkMessage
  {
    var header = rtmsg()
    header.rtm_family = UInt8(AF_INET)
    header.rtm_dst_len = UInt8(prefixLength)
    header.rtm_table = UInt8(RT_TABLE_MAIN.rawValue)
    header.rtm_protocol = UInt8(source)
    header.rtm_scope = UInt8(scope)
    header.rtm_type = UInt8(RTN_UNICAST)
    return NetlinkMessage(RTM_NEWROUTE, flags: NLM_F_CREATE | NLM_F_REPLACE, header: header)
  }

  /// What leaves by the interface waits its turn at this rate; nil: at once. `queueBytes` may wait, more is dropped.
  func setRate(_ index: CInt, bytesPerSecond: UInt64?, queueBytes: UInt32) throws(NetlinkFailure) {
    var header = tcmsg()
    header.tcm_family = UInt8(AF_UNSPEC)
    header.tcm_ifindex = index
    header.tcm_parent = TC_H_ROOT
    header.tcm_handle = 0x5F_0000
    guard let bytesPerSecond else {
      do { try request(NetlinkMessage(RTM_DELQDISC, header: header)) } catch {
        // ENOENT, or EINVAL where only the kernel's own is there.
        if !error.isMissing && error.code != -CInt(NLE_INVAL) { throw error }
      }
      return
    }
    var options = tc_tbf_qopt()
    options.rate.rate = UInt32(clamping: bytesPerSecond)
    options.rate.linklayer = UInt8(TC_LINKLAYER_ETHERNET.rawValue)
    options.limit = queueBytes
    let message = NetlinkMessage(RTM_NEWQDISC, flags: NLM_F_CREATE | NLM_F_REPLACE, header: header)
    message.put(TCA_KIND, "tbf")
    message.nest(TCA_OPTIONS) {
      message.put(TCA_TBF_PARMS, structure: options)
      message.put(TCA_TBF_RATE64, bytesPerSecond)
      // A millisecond's worth, and at least some of the largest frames.
      message.put(TCA_TBF_BURST, UInt32(clamping: max(bytesPerSecond / 1000, 16_384)))
    }
    try request(message)
  }
}
