import ArgumentParser
import Wire

struct HostInitCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "init", abstract: "Make a cluster, with this host as its first.",
    discussion: """
      The cluster's authority is made on this host; other hosts are enrolled here with host add. Safe to repeat.
      EXAMPLE: sfctl host init --address 10.0.0.1
      """)

  @Option(help: "This host's IPv4 address, where other hosts reach it.") var address: String
  @Option(help: "TCP port for other hosts.") var port: UInt16 = 7543
  @Option(help: "This host's name in the cluster (default: the machine's).") var name: String?

  func run() async throws {
    let reply = try await Daemon.call { client in
      try await client.initCluster(
        .with {
          $0.address = address
          $0.port = UInt32(port)
          $0.name = name ?? ""
        })
    }
    Standard.output("\(reply.host) is in a cluster, at \(reply.address):\(reply.port)")
  }
}

struct HostAddCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "add", abstract: "Enrol another host; run on the host that made the cluster.",
    discussion: """
      Writes a bundle with the new host's key: carry it there by a safe way, and run host join with it.
      EXAMPLE: sfctl host add h2 --address 10.0.0.2 --bundle h2.bundle
      """)

  @Argument(help: "The new host's name.") var name: String
  @Option(help: "Its IPv4 address.") var address: String
  @Option(help: "Its TCP port for other hosts.") var port: UInt16 = 7543
  @Option(help: "Where to write the bundle (default: NAME.bundle).") var bundle: String?

  func run() async throws {
    let reply = try await Daemon.call { client in
      try await client.addHost(
        .with {
          $0.name = name
          $0.address = address
          $0.port = UInt32(port)
        })
    }
    let path = bundle ?? "\(name).bundle"
    try BundleFile.write(reply.bundle, to: path)
    Standard.output("\(path): carry it to \(name) and run there: sfctl host join \(path)")
  }
}

struct HostJoinCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "join", abstract: "Join a cluster with the bundle that host add wrote.",
    discussion: "EXAMPLE: sfctl host join h2.bundle")

  @Argument(help: "The bundle.") var bundle: String

  func run() async throws {
    let data = try BundleFile.read(bundle)
    let reply = try await Daemon.call { client in
      try await client.joinCluster(.with { $0.bundle = data })
    }
    Standard.output("\(reply.host) has joined, at \(reply.address):\(reply.port); \(reply.hosts) hosts")
  }
}

struct HostRemoveCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "rm", abstract: "Remove a host from the cluster: it is refused from now on.",
    discussion: "EXAMPLE: sfctl host rm h2")

  @Argument(help: "The host.") var name: String

  func run() async throws {
    _ = try await Daemon.call { client in try await client.removeHost(.with { $0.name = name }) }
  }
}
