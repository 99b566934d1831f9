import Wire

/// All that is known at one time.
struct TopSample: Sendable {
  var time: ContinuousClock.Instant
  var hosts: [Snowfork_V1_HostInfo]
  var vms: [Snowfork_V1_VM]
  var tickets: [Snowfork_V1_Ticket]
  var stats: [Snowfork_V1_Stats]
}

/// What `top` shows: the later of two samples, and rates between them.
struct TopDocument: Encodable {
  var seconds: Double
  var hosts: [Host]
  var tickets: [Ticket]
  var snapshots: [Snapshot]

  struct Host: Encodable {
    var name: String
    var state: String
    var cpus: UInt32
    var memoryBytes: UInt64
    var memoryFreeBytes: UInt64
    var parents: Int
    var clones: Int
    var pagesPerS: Double
    var bytesReceivedPerS: Double
    var faultsPerS: Double
  }

  struct Ticket: Encodable {
    var ticket: String
    var parent: String
    var state: String
    var granted: UInt32
    var alive: UInt32
    var pagesPerS: Double
  }

  /// A host's share of a snapshot.
  struct Snapshot: Encodable {
    var snapshot: String
    var host: String
    var transport: String
    var transportReason: String
    var pagesPresent: UInt64
    var pagesTotal: UInt64
    var bytesReceivedPerS: Double
    var bytesSentPerS: Double
    var rateLimitBytesPerS: UInt64
    var requestsPerS: Double
    var servedPerS: Double
    var lockstepSuppressedPerS: Double
    var retransmittedPerS: Double
    var dropped: UInt64
    var remoteFaultP50Us: UInt64
    var whole: Bool
  }

  init(_ before: TopSample, _ now: TopSample) {
    let seconds = (now.time - before.time) / .seconds(1)
    self.seconds = seconds
    // A counter that went back has begun anew: then nothing is known of the time between.
    func rate(_ earlier: UInt64?, _ later: UInt64) -> Double {
      guard let earlier, later >= earlier, seconds > 0 else { return 0 }
      return Double(later - earlier) / seconds
    }
    let shares = now.stats.filter { $0.kind == "snapshot" }
    let earlier = Dictionary(
      before.stats.filter { $0.kind == "snapshot" }.map { ([$0.host, $0.name], $0) },
      uniquingKeysWith: { first, _ in first })
    func rate(_ share: Snowfork_V1_Stats, _ counter: (Snowfork_V1_Stats) -> UInt64) -> Double {
      rate(earlier[[share.host, share.name]].map(counter), counter(share))
    }

    hosts = now.hosts.map { host in
      let own = shares.filter { $0.host == host.name }
      let vms = now.vms.filter { $0.host == host.name && $0.state != "unknown" }
      return Host(
        name: host.name, state: host.state.isEmpty ? "up" : host.state, cpus: host.cpus,
        memoryBytes: host.memoryBytes, memoryFreeBytes: host.memoryFreeBytes,
        parents: vms.count { $0.role == "parent" }, clones: vms.count { $0.role == "clone" },
        pagesPerS: own.reduce(0) { $0 + rate($1, \.pagesPresent) },
        bytesReceivedPerS: own.reduce(0) { $0 + rate($1, \.bytesReceived) },
        faultsPerS: own.reduce(0) { $0 + rate($1, \.faults) })
    }
    tickets = now.tickets.map { ticket in
      Ticket(
        ticket: ticket.ticket, parent: ticket.parent, state: ticket.state, granted: ticket.granted,
        alive: ticket.alive,
        pagesPerS: shares.filter { !ticket.snapshot.isEmpty && $0.name == ticket.snapshot }
          .reduce(0) { $0 + rate($1, \.pagesPresent) })
    }
    snapshots = shares.map { share in
      Snapshot(
        snapshot: share.name, host: share.host, transport: share.transport,
        transportReason: share.transportReason, pagesPresent: share.pagesPresent,
        pagesTotal: share.pagesTotal, bytesReceivedPerS: rate(share, \.bytesReceived),
        bytesSentPerS: rate(share, \.mcdist.bytesSent),
        rateLimitBytesPerS: share.mcdist.rateLimitBytesPerS, requestsPerS: rate(share, \.mcdist.requests),
        servedPerS: rate(share, \.mcdist.served),
        lockstepSuppressedPerS: rate(share, \.mcdist.lockstepSuppressed),
        retransmittedPerS: rate(share, \.mcdist.retransmitted), dropped: share.mcdist.dropped,
        remoteFaultP50Us: share.remoteFaultUs.p50, whole: share.whole)
    }
  }

  var lines: [String] {
    let up = hosts.count { $0.state == "up" }
    let clones = hosts.reduce(0) { $0 + $1.clones }
    let received = hosts.reduce(0) { $0 + $1.bytesReceivedPerS }
    var lines = [
      "snowfork: \(up) of \(hosts.count) hosts up, \(clones) clones, \(Self.bytes(received)) arriving", "",
    ]
    var table = Table(
      "HOST", "STATE", "CPUS", "MEMORY", "FREE", "VMS", "CLONES", "PAGES/S", "RECEIVED", "FAULTS/S")
    for host in hosts {
      table.add(
        host.name, host.state, "\(host.cpus)", Units.bytes(host.memoryBytes),
        Units.bytes(host.memoryFreeBytes),
        "\(host.parents + host.clones)", "\(host.clones)", Self.number(host.pagesPerS),
        Self.bytes(host.bytesReceivedPerS), Self.number(host.faultsPerS))
    }
    lines += table.lines
    if !tickets.isEmpty {
      var table = Table("TICKET", "PARENT", "STATE", "GRANTED", "ALIVE", "PAGES/S")
      for ticket in tickets {
        table.add(
          ticket.ticket, ticket.parent, ticket.state, "\(ticket.granted)", "\(ticket.alive)",
          Self.number(ticket.pagesPerS))
      }
      lines += [""] + table.lines
    }
    if !snapshots.isEmpty {
      var table = Table(
        "SNAPSHOT", "HOST", "WAY", "HERE", "IN", "OUT", "LIMIT", "ASKED/S", "SERVED/S", "LOCKSTEP/S",
        "AGAIN/S",
        "REMOTE P50")
      for share in snapshots {
        let part = share.pagesTotal == 0 ? 0 : share.pagesPresent * 100 / share.pagesTotal
        table.add(
          share.snapshot, share.host, share.transport, share.whole ? "all" : "\(part) %",
          Self.bytes(share.bytesReceivedPerS), Self.bytes(share.bytesSentPerS),
          share.rateLimitBytesPerS == 0 ? "" : Self.bytes(Double(share.rateLimitBytesPerS)),
          Self.number(share.requestsPerS), Self.number(share.servedPerS),
          Self.number(share.lockstepSuppressedPerS), Self.number(share.retransmittedPerS),
          share.remoteFaultP50Us == 0 ? "" : Units.microseconds(share.remoteFaultP50Us))
      }
      lines += [""] + table.lines
      let reasons = Set(
        snapshots.filter { !$0.transportReason.isEmpty }.map { "\($0.host): \($0.transportReason)" })
      if !reasons.isEmpty { lines += [""] + reasons.sorted().map { "unicast on " + $0 } }
    }
    return lines
  }

  private static func number(_ rate: Double) -> String { rate < 0.5 ? "" : "\(Int(rate.rounded()))" }
  private static func bytes(_ rate: Double) -> String {
    rate < 0.5 ? "0 B/s" : Units.bytes(UInt64(rate)) + "/s"
  }
}
