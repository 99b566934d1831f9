/// How pages travel to other hosts.
public enum TransportMode: String, Sendable, Codable {
  /// By multicast; a host that it does not reach falls back to unicast by itself.
  case auto
  case unicast
  case multicast
}
