/// The rules in the namespace of a family's router, which has the interfaces `inner`, on the family's bridge, and
/// `outer`, towards the host.
enum RouterRules {
  static let inner = "inner"
  static let outer = "outer"

  /// Replaces all there is, in one transaction. Connections that are open go on if the new list allows them: each
  /// packet outward is looked at, not only the first.
  static func text(_ family: FamilyNetwork, _ plan: AddressPlan) -> String {
    let parent = plan.address(vmid: 0)!
    var rules = [
      "add chain inet snowfork input { type filter hook input priority 0; policy drop; }",
      "add chain inet snowfork forward { type filter hook forward priority 0; policy drop; }",
      "add chain inet snowfork allowed",
      "add chain inet snowfork dstnat { type nat hook prerouting priority -100; policy accept; }",
      "add chain inet snowfork srcnat { type nat hook postrouting priority 100; policy accept; }",
      "add rule inet snowfork input iifname inner ip daddr \(plan.gateway) icmp type echo-request accept",
      "add rule inet snowfork forward iifname outer ct state established,related accept",
      "add rule inet snowfork forward iifname outer ct status dnat accept",
      "add rule inet snowfork forward iifname inner oifname outer ct direction reply accept",
      "add rule inet snowfork forward iifname inner oifname outer ip saddr \(plan.subnet) jump allowed",
      "add rule inet snowfork srcnat oifname outer masquerade",
    ]
    for destination in family.outward?.allowed ?? [] {
      rules.append("add rule inet snowfork allowed \(condition(destination)) accept")
    }
    for forward in family.forwards {
      rules.append(
        "add rule inet snowfork dstnat iifname outer \(forward.transport.rawValue) dport \(forward.hostPort) "
          + "dnat ip to \(parent):\(forward.guestPort)")
    }
    return """
      add table inet snowfork
      delete table inet snowfork
      add table inet snowfork
      \(rules.joined(separator: "\n"))

      """
  }

  private static func condition(_ destination: OutwardPolicy.Destination) -> String {
    // nft has no name for all addresses.
    let subnet = destination.subnet.prefixLength == 0 ? "meta nfproto ipv4" : "ip daddr \(destination.subnet)"
    switch destination.service {
    case nil: return subnet
    case .icmpEcho: return "\(subnet) icmp type echo-request"
    case .transport(let transport, nil): return "\(subnet) meta l4proto \(transport.rawValue)"
    case .transport(let transport, let port?): return "\(subnet) \(transport.rawValue) dport \(port)"
    }
  }
}
