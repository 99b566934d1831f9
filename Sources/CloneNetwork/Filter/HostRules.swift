/// A port of the host that somebody may have.
struct HostPort: Hashable {
  var transport: Transport
  var number: UInt16
}

/// The rules of a host's own namespace, for all of its families. docs/network.md says what each is for.
///
/// Applied again they replace themselves in one transaction, with the elements of the sets as they are.
enum HostRules {
  static let bridgeTable = "bridge snowfork"
  static let inetTable = "inet snowfork"
  /// Tap, MAC and IPv4 address that belong together: what counts. Beside it there is `paths` with the taps' indices
  /// in place of their names, for the rule that most frames meet: a shorter key costs 3 % of a frame's way less.
  static let bound = "bridge snowfork bound"

  /// Between the routers of families and the host: a pair of addresses each, of which nobody outside hears.
  static let links = IPv4Subnet("169.254.240.0/20")!

  /// Frames, before the bridge looks at them: nothing is learnt from what is dropped here.
  static let bridge = """
    add table bridge snowfork
    add set bridge snowfork bound { type ifname . ether_addr . ipv4_addr; }
    add set bridge snowfork paths { type iface_index . ether_addr . ipv4_addr; size 65535; }
    add chain bridge snowfork prerouting { type filter hook prerouting priority -300; policy accept; }
    add chain bridge snowfork input { type filter hook input priority -300; policy accept; }
    add chain bridge snowfork output { type filter hook output priority -300; policy accept; }
    add chain bridge snowfork from_tap
    add chain bridge snowfork from_tap_ipv4
    add chain bridge snowfork from_tap_arp
    flush chain bridge snowfork prerouting
    flush chain bridge snowfork input
    flush chain bridge snowfork output
    flush chain bridge snowfork from_tap
    flush chain bridge snowfork from_tap_ipv4
    flush chain bridge snowfork from_tap_arp
    add rule bridge snowfork prerouting ether type ip iif . ether saddr . ip saddr @paths goto from_tap_ipv4
    add rule bridge snowfork prerouting iifname "sft*" goto from_tap
    add rule bridge snowfork from_tap ether type arp iifname . ether saddr . arp saddr ip @bound goto from_tap_arp
    add rule bridge snowfork from_tap drop
    add rule bridge snowfork from_tap_ipv4 udp dport { 67, 68 } drop
    add rule bridge snowfork from_tap_ipv4 accept
    add rule bridge snowfork from_tap_arp arp htype 1 arp ptype ip arp hlen 6 arp plen 4 \
      arp operation { request, reply } iifname . arp saddr ether . arp saddr ip @bound accept
    add rule bridge snowfork from_tap_arp drop
    add rule bridge snowfork input iifname "sft*" drop
    add rule bridge snowfork input iifname "sfx*" drop
    add rule bridge snowfork input iifname "sfv*" drop
    add rule bridge snowfork output oifname "sft*" drop
    add rule bridge snowfork output oifname "sfx*" drop
    add rule bridge snowfork output oifname "sfv*" drop

    """

  /// Packets of the host. Priority -450 is before defragmentation: where the kernel shows bridged frames to these
  /// hooks (br_netfilter), fragments and connections of two families with the same addresses never meet.
  static let inet = """
    add table inet snowfork
    add set inet snowfork peers { type ipv4_addr; }
    add set inet snowfork vxlan_ports { type inet_service; }
    add chain inet snowfork untracked { type filter hook prerouting priority -450; policy accept; }
    add chain inet snowfork input { type filter hook input priority -10; policy accept; }
    flush chain inet snowfork untracked
    flush chain inet snowfork input
    add rule inet snowfork untracked iifname "sfb*" notrack
    add rule inet snowfork input iifname "sfb*" drop
    add rule inet snowfork input udp dport @vxlan_ports ip saddr != @peers drop
    add rule inet snowfork input udp dport @vxlan_ports meta nfproto ipv6 drop

    """

  /// As long as there is a router: its packets to the outside, never to this or another host, nor to another router.
  static let outward = """
    add map inet snowfork forwards { type inet_proto . inet_service : ipv4_addr; }
    add chain inet snowfork others
    add chain inet snowfork forward { type filter hook forward priority -10; policy accept; }
    add chain inet snowfork dstnat { type nat hook prerouting priority -100; policy accept; }
    add chain inet snowfork own_dstnat { type nat hook output priority -100; policy accept; }
    add chain inet snowfork srcnat { type nat hook postrouting priority 100; policy accept; }
    flush chain inet snowfork forward
    flush chain inet snowfork dstnat
    flush chain inet snowfork own_dstnat
    flush chain inet snowfork srcnat
    add rule inet snowfork input iifname "sfh*" ct state established accept
    add rule inet snowfork input iifname "sfh*" drop
    add rule inet snowfork forward iifname "sfb*" accept
    add rule inet snowfork forward iifname "sfh*" oifname "sfh*" drop
    add rule inet snowfork forward iifname "sfh*" ct direction reply ct status dnat accept
    add rule inet snowfork forward iifname "sfh*" ip daddr @peers drop
    add rule inet snowfork forward iifname "sfh*" udp dport @vxlan_ports drop
    add rule inet snowfork forward iifname "sfh*" accept
    add rule inet snowfork forward oifname "sfh*" ct state established,related accept
    add rule inet snowfork forward oifname "sfh*" ct status dnat accept
    add rule inet snowfork forward oifname "sfh*" drop
    add rule inet snowfork forward jump others
    add rule inet snowfork dstnat fib daddr type local dnat ip to meta l4proto . th dport map @forwards
    add rule inet snowfork own_dstnat ip daddr != 127.0.0.0/8 fib daddr type local \
      dnat ip to meta l4proto . th dport map @forwards
    add rule inet snowfork srcnat ip saddr \(links) oifname != "sfh*" masquerade

    """

  /// A client whose address is one of the family's own would get its answers nowhere: it comes as the host.
  static func maskClients(family: String, subnet: IPv4Subnet) -> String {
    let link = InterfaceNames.name(.routerLink, family: family)
    return "add rule inet snowfork srcnat oifname \"\(link)\" ip saddr \(subnet) masquerade\n"
  }

  /// All without a router: what `outward` has added goes.
  static let noOutward = """
    add map inet snowfork forwards { type inet_proto . inet_service : ipv4_addr; }
    add chain inet snowfork others
    add chain inet snowfork forward
    add chain inet snowfork dstnat
    add chain inet snowfork own_dstnat
    add chain inet snowfork srcnat
    delete chain inet snowfork forward
    delete chain inet snowfork dstnat
    delete chain inet snowfork own_dstnat
    delete chain inet snowfork srcnat
    delete chain inet snowfork others
    delete map inet snowfork forwards

    """

  /// The host forwards packets because of us only: so not those of others. The rule's presence says so to the next
  /// process too.
  static let closeOthers = "flush chain inet snowfork others\nadd rule inet snowfork others drop\n"

  static let remove = """
    add table bridge snowfork
    delete table bridge snowfork
    add table inet snowfork
    delete table inet snowfork

    """

  static func setPeers(_ peers: Set<IPv4Address>, ports: Set<UInt16>) -> String {
    replace("peers", peers.sorted().map(\.description))
      + replace("vxlan_ports", ports.sorted().map { "\($0)" })
  }

  /// Which router has which port of the host.
  static func setForwards(_ forwards: [HostPort: IPv4Address]) -> String {
    replace(
      "forwards", forwards.map { "\($0.transport.rawValue) . \($0.number) : \($1)" }.sorted(), kind: "map")
  }

  static func addBound(_ tap: String, index: CInt, _ binding: TapBinding) -> String {
    "add element \(bound) { \"\(tap)\" . \(binding.mac) . \(binding.address) }\n"
      + "add element bridge snowfork paths { \(index) . \(binding.mac) . \(binding.address) }\n"
  }

  static func deleteBound(_ tap: String, index: CInt, _ binding: TapBinding) -> String {
    "delete element \(bound) { \"\(tap)\" . \(binding.mac) . \(binding.address) }\n"
      + "delete element bridge snowfork paths { \(index) . \(binding.mac) . \(binding.address) }\n"
  }

  static let flushBound = "flush set bridge snowfork bound\nflush set bridge snowfork paths\n"

  private static func replace(_ name: String, _ elements: [String], kind: String = "set") -> String {
    "flush \(kind) inet snowfork \(name)\n"
      + (elements.isEmpty
        ? "" : "add element inet snowfork \(name) { \(elements.joined(separator: ", ")) }\n")
  }
}
