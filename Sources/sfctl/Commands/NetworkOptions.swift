import ArgumentParser
import Wire

/// The network that a device VM and its clones have for themselves.
struct NetworkOptions: ParsableArguments {
  @Flag(name: .customLong("no-network"), help: "No network card.") var isWithout = false
  @Option(help: "The family's addresses: 10.111.0.0/16, of 8 to 29 bits. Other families may have the same.")
  var subnet: String?
  @Option(
    help: """
      A destination outside that the VM and its clones may reach: 10.0.0.0/8, 10.0.0.7:443, 10.0.0.7:53/udp,
      10.0.0.7:icmp. Without any they reach only each other.
      """)
  var allow: [String] = []
  @Option(help: "The most that the family sends outward, and gets from there, on each host in a second: 10M.")
  var rate: MemorySize?
  @Option(
    name: .shortAndLong,
    help: "A port of the host that leads to one of the VM, never to a clone: 8080:80, 5353:53/udp."
  )
  var publish: [String] = []

  /// Something is to be of a card that there would have to be.
  var isAsked: Bool { subnet != nil || !allow.isEmpty || rate != nil || !publish.isEmpty }

  var request: Snowfork_V1_NetworkRequest {
    .with {
      $0.none = isWithout
      $0.subnet = subnet ?? ""
      $0.allowed = allow
      $0.bytesPerSecond = rate?.bytes ?? 0
      $0.forwards = publish
    }
  }
}
