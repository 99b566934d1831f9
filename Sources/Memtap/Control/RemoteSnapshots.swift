/// Where the pages of a snapshot are served to other hosts, and what is needed to get them.
public struct PageOrigin: Sendable, Codable, Equatable {
  /// IPv4 of the origin's pager, as text, and its UDP port for requests.
  public var address: String
  public var port: UInt16
  /// IPv4 multicast group and UDP port that pages are sent to.
  public var group: String
  public var groupPort: UInt16
  /// 256 bits, of this snapshot: whoever has it may read its pages.
  public var key: [UInt8]
  public var transport: PageTransport

  public init(
    address: String, port: UInt16, group: String, groupPort: UInt16, key: [UInt8], transport: PageTransport
  ) {
    self.address = address
    self.port = port
    self.group = group
    self.groupPort = groupPort
    self.key = key
    self.transport = transport
  }
}

/// How pages travel to other hosts.
public enum PageTransport: String, Sendable, Codable {
  /// By multicast; a host that it does not reach, or where it is slower, falls back to unicast by itself.
  case auto
  case unicast
  case multicast
}

/// A snapshot whose origin is on another host.
public struct RemoteSnapshot: Sendable, Codable {
  public var id: String
  /// The origin's host, for messages.
  public var host: String
  public var parent: String
  public var ramBytes: UInt64
  /// Pages that are not known to be zero; travels as raw runs beside the JSON.
  public var existing: [SnapshotLayout.PageRun]
  public var origin: PageOrigin
  /// This host's address, where datagrams are received.
  public var localAddress: String
  /// Bring all of it here in the background.
  public var push: Bool
  /// Most of it is here. Nil: nothing is.
  public var warm: Warm?

  /// What a standby of the parent on this host is of, and what was written since.
  public struct Warm: Sendable, Codable {
    public var standby: String
    public var mark: StandbyMark
    /// Runs of pages that differ, 8 bytes each: first, count, little-endian 32 bits.
    public var written: [UInt8]
    public init(standby: String, mark: StandbyMark, written: [UInt8]) {
      self.standby = standby
      self.mark = mark
      self.written = written
    }
  }

  public init(
    id: String, host: String, parent: String, ramBytes: UInt64, existing: [SnapshotLayout.PageRun],
    origin: PageOrigin, localAddress: String, push: Bool
  ) {
    self.id = id
    self.host = host
    self.parent = parent
    self.ramBytes = ramBytes
    self.existing = existing
    self.origin = origin
    self.localAddress = localAddress
    self.push = push
  }
}

/// Of a snapshot with pages from another host (`received…`), or with pages served to others (`served…`).
public struct DistributionCounters: Sendable, Codable {
  /// Datagram payload bytes received, and sent.
  public var bytesReceived: UInt64 = 0
  public var bytesSent: UInt64 = 0
  /// Requests for pages: sent by a receiver, received by a server (one for each page and host).
  public var requests: UInt64 = 0
  /// Pages sent.
  public var served: UInt64 = 0
  public var lockstepSuppressed: UInt64 = 0
  public var retransmitted: UInt64 = 0
  public var rateLimitBytesPerSecond: UInt64 = 0
  /// Datagrams that were forged, altered, replayed or malformed.
  public var dropped: UInt64 = 0
  /// Pages that came by the background push.
  public var pagesPushed: UInt64 = 0
  /// multicast or unicast; why not multicast, in words.
  public var transport = ""
  public var transportReason = ""
  /// From a fault to its page's installation, of pages from another host.
  public var remoteFaultMicroseconds = LatencySummary()
  public init() {}
}

/// How the pages of a snapshot came to this host.
public struct SnapshotHistory: Sendable, Codable {
  public struct Sample: Sendable, Codable {
    /// Since the snapshot came to this host.
    public var microseconds: UInt64
    public var pagesPresent: UInt64
    public var bytesReceived: UInt64
    public var faults: UInt64
    public init(microseconds: UInt64, pagesPresent: UInt64, bytesReceived: UInt64, faults: UInt64) {
      self.microseconds = microseconds
      self.pagesPresent = pagesPresent
      self.bytesReceived = bytesReceived
      self.faults = faults
    }
  }
  /// At most 512, in ascending order of time.
  public var samples: [Sample]
  /// A byte a page: 0 not here, 1 at the origin (this is its host), 2 touched, 3 prefetched, 4 pushed, 5 zero or
  /// avoided, 6 saved before a write of the origin.
  public var pages: [UInt8]
  public init(samples: [Sample], pages: [UInt8]) {
    self.samples = samples
    self.pages = pages
  }
}
