import Wire

/// What was fetched for a clone, a host's share of a snapshot, or a ticket (sums).
struct StatsDocument: Encodable {
  var name: String
  var kind: String
  var pagesTotal: UInt64
  var pagesPresent: UInt64
  var pagesFetched: UInt64
  var pagesPrefetched: UInt64
  /// Not fetched: zeros, free in the guest at the fork, or filled whole by a device. And of these, the last.
  var pagesAvoided: UInt64
  var pagesOverwritten: UInt64
  var pagesShared: UInt64
  var bytesReceived: UInt64
  var faults: UInt64
  var faultUs: Quantiles
  var remoteFaultUs: Quantiles
  var mcdist: Mcdist
  var preimagesSaved: UInt64
  var host: String
  var snapshot: String
  /// local, multicast, unicast; and why not multicast.
  var transport: String
  var transportReason: String
  var pagesPushed: UInt64
  /// Every page is on this host.
  var whole: Bool
  var disk: Disk

  /// Files that disks are made of, what those of the host occupy, and what has come of other hosts'.
  struct Disk: Encodable {
    var layers: UInt32
    var bytes: UInt64
    var fetchedBytes: UInt64
  }

  struct Quantiles: Encodable {
    var p50: UInt64
    var p99: UInt64
    var max: UInt64

    init(_ quantiles: Snowfork_V1_Quantiles) {
      p50 = quantiles.p50
      p99 = quantiles.p99
      max = quantiles.max
    }
  }

  struct Mcdist: Encodable {
    var requests: UInt64
    var served: UInt64
    var lockstepSuppressed: UInt64
    var retransmitted: UInt64
    var bytesSent: UInt64
    var rateLimitBytesPerS: UInt64
    /// Datagrams that were forged, altered, replayed or malformed.
    var dropped: UInt64
  }

  init(_ stats: Snowfork_V1_Stats) {
    name = stats.name
    kind = stats.kind
    pagesTotal = stats.pagesTotal
    pagesPresent = stats.pagesPresent
    pagesFetched = stats.pagesFetched
    pagesPrefetched = stats.pagesPrefetched
    pagesAvoided = stats.pagesAvoided
    pagesOverwritten = stats.pagesOverwritten
    pagesShared = stats.pagesShared
    bytesReceived = stats.bytesReceived
    faults = stats.faults
    faultUs = Quantiles(stats.faultUs)
    remoteFaultUs = Quantiles(stats.remoteFaultUs)
    mcdist = Mcdist(
      requests: stats.mcdist.requests, served: stats.mcdist.served,
      lockstepSuppressed: stats.mcdist.lockstepSuppressed, retransmitted: stats.mcdist.retransmitted,
      bytesSent: stats.mcdist.bytesSent, rateLimitBytesPerS: stats.mcdist.rateLimitBytesPerS,
      dropped: stats.mcdist.dropped)
    preimagesSaved = stats.preimagesSaved
    host = stats.host
    snapshot = stats.snapshot
    transport = stats.transport
    transportReason = stats.transportReason
    pagesPushed = stats.pagesPushed
    whole = stats.whole
    disk = Disk(
      layers: stats.disk.layers, bytes: stats.disk.bytes, fetchedBytes: stats.disk.fetchedBytes)
  }
}

/// `stats --json` without a name.
struct StatsListDocument: Encodable {
  var stats: [StatsDocument]

  var text: String {
    var table = Table(
      "NAME", "KIND", "HOST", "TRANSPORT", "PAGES", "PRESENT", "FETCHED", "PREFETCHED", "AVOIDED", "SHARED",
      "FAULTS",
      "P50", "P99", "MAX",
      "PRE-IMAGES", "DISK")
    for one in stats {
      table.add(
        one.name, one.kind, one.host, one.transport, "\(one.pagesTotal)", "\(one.pagesPresent)",
        "\(one.pagesFetched)",
        "\(one.pagesPrefetched)", "\(one.pagesAvoided)", "\(one.pagesShared)", "\(one.faults)",
        Units.microseconds(one.faultUs.p50),
        Units.microseconds(one.faultUs.p99), Units.microseconds(one.faultUs.max), "\(one.preimagesSaved)",
        one.disk.layers == 0 ? "-" : Units.bytes(one.disk.bytes + one.disk.fetchedBytes))
    }
    guard !table.isEmpty else { return "nothing has been forked yet" }
    return ([table.text] + reasons).joined(separator: "\n")
  }

  /// Why pages do not come by multicast, once a host and reason.
  private var reasons: [String] {
    Set(stats.filter { !$0.transportReason.isEmpty }.map { "\($0.host): unicast, as \($0.transportReason)" })
      .sorted()
  }
}
