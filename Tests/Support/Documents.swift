import Foundation

/// What `sfctl --json` prints, as far as the contract promises it: a field that is missing fails to decode.
public struct ForkDocument: Decodable, Sendable {
  public struct Clone: Decodable, Sendable {
    public var vmid: Int
    public var name: String
    public var host: String
    public var state: String
    public var activateUs: Int
    public var readyUs: Int
    public var reason: String?
  }

  public var ticket: String
  public var snapshot: String
  public var parent: String
  public var ramBytes: Int
  public var descriptorBytes: Int
  public var requested: Int
  public var granted: Int
  public var parentPauseUs: Int
  public var forkUs: Int
  public var freePages: Int
  public var freeUnknown: String
  public var clones: [Clone]
}

public struct VMDocument: Decodable, Sendable {
  public var name: String
  public var role: String
  public var vmid: Int
  public var ticket: String
  public var snapshot: String
  public var host: String
  public var state: String
  public var pid: Int32
  public var memoryBytes: Int
  public var presentBytes: Int
  public var privateBytes: Int
  public var cpuLimitPercent: Int
  public var ip: String
  public var mac: String
  public var reason: String
}

public struct VMList: Decodable, Sendable {
  public var vms: [VMDocument]
}

public struct JoinDocument: Decodable, Sendable {
  public struct Status: Decodable, Sendable {
    public var vmid: Int
    public var how: String
    public var status: Int
    public var result: Data
    public var reason: String
  }

  public var ticket: String
  public var statuses: [Status]
}

public struct StatsDocument: Decodable, Sendable {
  public struct Quantiles: Decodable, Sendable {
    public var p50: Int
    public var p99: Int
    public var max: Int
  }

  public struct Mcdist: Decodable, Sendable {
    public var requests: Int
    public var served: Int
    public var lockstepSuppressed: Int
    public var retransmitted: Int
    public var bytesSent: Int
    public var rateLimitBytesPerS: Int
  }

  public var pagesTotal: Int
  public var pagesPresent: Int
  public var pagesFetched: Int
  public var pagesPrefetched: Int
  public var pagesAvoided: Int
  public var pagesOverwritten: Int
  public var pagesShared: Int
  public var bytesReceived: Int
  public var faults: Int
  public var faultUs: Quantiles
  public var remoteFaultUs: Quantiles
  public var mcdist: Mcdist
  public var whole: Bool
  public var transport: String
}
