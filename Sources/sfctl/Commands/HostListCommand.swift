import ArgumentParser
import Wire

struct HostListCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "ls", abstract: "List the hosts.", discussion: "EXAMPLE: sfctl host ls --json")

  @OptionGroup var output: OutputOptions

  func run() async throws {
    let reply = try await Daemon.call { try await $0.listHosts(.init()) }
    let document = HostListDocument(hosts: reply.hosts.map(HostDocument.init))
    try output.show(document, text: document.text)
  }
}

private struct HostDocument: Encodable {
  var name: String
  var cpus: UInt32
  var memoryBytes: UInt64
  var memoryFreeBytes: UInt64
  var vms: UInt32
  /// kvm, tcg
  var accelerator: String
  var version: String
  /// up, down
  var state: String
  /// Where other hosts reach it; empty: it is in no cluster.
  var address: String

  init(_ host: Snowfork_V1_HostInfo) {
    name = host.name
    cpus = host.cpus
    memoryBytes = host.memoryBytes
    memoryFreeBytes = host.memoryFreeBytes
    vms = host.vms
    accelerator = host.accelerator
    version = host.version
    state = host.state.isEmpty ? "up" : host.state
    address = host.address
  }
}

private struct HostListDocument: Encodable {
  var hosts: [HostDocument]

  var text: String {
    var table = Table("HOST", "STATE", "ADDRESS", "CPUS", "MEMORY", "FREE", "VMS", "ACCELERATOR", "VERSION")
    for host in hosts {
      table.add(
        host.name, host.state, host.address.isEmpty ? "-" : host.address, "\(host.cpus)",
        Units.bytes(host.memoryBytes), Units.bytes(host.memoryFreeBytes),
        "\(host.vms)", host.accelerator, host.version)
    }
    return table.text
  }
}
