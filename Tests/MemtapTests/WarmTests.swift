import Memtap
import Replicator
import Testing

/// Forks to the host of the VM's standby.
@Suite(.serialized) struct WarmTests {
  private let pages = 4096

  /// What earlier clones asked for is sent to a cold host; a warm one gets of it what was written since the checkpoint.
  /// Every clone sees the fork point.
  @Test func theWorkingSetLeavesOutWhatTheStandbyHas() throws {
    let hosts = try HostsHarness(2)
    defer { hosts.close() }
    let vm = try hosts[0].guest("dev", pages: pages)
    try vm.write(0..<3000, tag: 1000)

    let first = try hosts[0].freeze(vm, as: "s1")
    try hosts.spread("s1", of: vm, from: 0, to: [1])
    let cold = try hosts[1].clone(of: "s1", "dev.1", pages: pages)
    let seenCold = try cold.tags(0..<2000)
    #expect(seenCold == Array(first[0..<2000]))
    try hosts[1].end(cold)

    let replication = try StandbyTests.Replication(hosts[0], vm)
    let checkpoint = try replication.take()
    let standby = "r-dev-1"
    _ = try hosts[1].client.receive(standby: standby, parent: "dev", path: checkpoint.path)
    try vm.write(100..<200, tag: 2000)
    try vm.zero(150..<160)
    try vm.write(3500..<3600, tag: 3000)
    let second = try hosts[0].freeze(vm, as: "s2")
    let written = try hosts[0].client.written("s2", since: checkpoint.snapshot)
    try hosts.spread(
      "s2", of: vm, from: 0, to: [1], warm: warm(standby, checkpoint.header, written))
    // Of the working set, 2,000 pages, 90 were written and are not zeros: they come unasked.
    try hosts[1].eventually("what lacks of the working set is there") {
      try hosts[1].counters(of: "s2").pagesPrefetched >= 90
    }
    let warm = try hosts[1].clone(of: "s2", "dev.2", pages: pages)
    let seen = try warm.tags()
    #expect(seen == second)
    let counters = try hosts[1].counters(of: "s2")
    let served = try #require(try hosts[0].counters(of: "s2").distribution).served
    #expect(served < 300, "\(served) pages were sent, of \(counters.pagesPresent) that are there")
  }

  /// The checkpoint that the standby is of may have been taken after the fork. Pages that were written with what they had
  /// do not count.
  @Test func aCheckpointOfALaterMomentServesAsWell() throws {
    let hosts = try HostsHarness(2)
    defer { hosts.close() }
    let vm = try hosts[0].guest("dev", pages: pages)
    try vm.write(0..<3000, tag: 1000)
    let replication = try StandbyTests.Replication(hosts[0], vm)
    let standby = "r-dev-1"
    let first = try replication.take()
    _ = try hosts[1].client.receive(standby: standby, parent: "dev", path: first.path)
    try replication.acknowledge(first.header, first.snapshot)
    try vm.write(100..<200, tag: 2000)
    let fork = try hosts[0].freeze(vm, as: "s2")
    try vm.write(150..<300, tag: 3000)
    try vm.write(1000..<1100, tag: 1000)
    try vm.zero(3500..<3600)
    let later = try replication.take()
    _ = try hosts[1].client.receive(standby: standby, parent: "dev", path: later.path)
    let written = try hosts[0].client.written("s2", since: later.snapshot)
    #expect(written.existing.flatMap { $0.first..<$0.first + $0.count } == Array(150..<300))
    try hosts.spread("s2", of: vm, from: 0, to: [1], warm: warm(standby, later.header, written))
    let clone = try hosts[1].clone(of: "s2", "dev.1", pages: pages)
    let seen = try clone.tags()
    #expect(seen == fork)
    let served = try #require(try hosts[0].counters(of: "s2").distribution).served
    #expect(served < 300, "\(served) pages were sent")
  }

  private func warm(
    _ standby: String, _ header: CheckpointHeader, _ written: SnapshotLayout
  ) -> RemoteSnapshot.Warm {
    .init(
      standby: standby, mark: .init(sequence: header.sequence, digest: header.digest),
      written: written.existing.flatMap { [$0.first, $0.count] }.flatMap { number in
        withUnsafeBytes(of: number.littleEndian) { Array($0) }
      })
  }
}
