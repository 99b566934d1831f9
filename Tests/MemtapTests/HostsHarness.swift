import Foundation
import Glibc
import Memtap
import Testing

/// Several hosts: a pager each, with files of its own. They reach each other over loopback, or over a network of
/// their own.
final class HostsHarness {
  let hosts: [PagerHarness]
  private let network: TestNetwork?

  init(_ count: Int, bytesMax: [UInt64] = [], tuning: String = "", network: TestNetwork? = nil) throws {
    self.network = network
    var hosts: [PagerHarness] = []
    do {
      for number in 0..<count {
        hosts.append(
          try PagerHarness(
            bytesMax: number < bytesMax.count ? bytesMax[number] : 1 << 30, tuning: tuning,
            network: network?.name(number)))
      }
    } catch {
      for host in hosts { host.close() }
      network?.remove()
      throw error
    }
    self.hosts = hosts
  }

  subscript(_ number: Int) -> PagerHarness { hosts[number] }

  /// Makes the snapshot of host `origin` known on the others, as their daemons would.
  func spread(
    _ snapshot: String, of parent: TestGuest, from origin: Int, to others: [Int], push: Bool = false,
    transport: PageTransport = .auto, warm: RemoteSnapshot.Warm? = nil
  ) throws {
    let client = hosts[origin].client
    let layout = try client.survey(snapshot: snapshot, kernel: nil)
    let place = try client.serve(snapshot: snapshot, address: address(origin), transport: transport)
    for other in others {
      var remote = RemoteSnapshot(
        id: snapshot, host: "h\(origin)", parent: parent.name, ramBytes: layout.ramBytes,
        existing: layout.existing, origin: place, localAddress: address(other), push: push)
      remote.warm = warm
      try hosts[other].client.attach(remote)
    }
  }

  private func address(_ host: Int) -> String { network?.address(host) ?? "127.0.0.1" }

  func close() {
    for host in hosts { host.close() }
    network?.remove()
  }
}

extension PagerHarness {
  func counters(of snapshot: String) throws -> MemtapStatistics.SnapshotCounters {
    try #require(try client.statistics().snapshots.first { $0.snapshot == snapshot })
  }
}
