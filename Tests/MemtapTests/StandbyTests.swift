import Foundation
import Glibc
import Memtap
import Replicator
import Testing

/// Checkpoints of a VM that writes, and a standby that is byte for byte what the VM was, whatever dies meanwhile.
@Suite(.serialized) struct StandbyTests {
  static let pages = 2048

  /// The daemon's part: files, heads, and which snapshot the last checkpoint was made of.
  final class Replication {
    let harness: PagerHarness
    let vm: TestGuest
    let directory: String
    var sequence: UInt64 = 0
    var digest = CheckpointHeader.noDigest
    var base: String?
    var standby = ""

    init(_ harness: PagerHarness, _ vm: TestGuest) throws {
      self.harness = harness
      self.vm = vm
      directory = "\(harness.paths.run)/checkpoints"
      mkdir(directory, 0o700)
    }

    /// Freezes the VM and writes what differs; answers the file, the head, and the VM's pages of that moment.
    func take() throws -> (path: String, header: CheckpointHeader, snapshot: String, model: [UInt64]) {
      let next = sequence + 1
      let snapshot = "c\(next)-\(UInt32.random(in: 0 ... .max))"
      try harness.client.arm(vm: vm.name)
      try vm.pause()
      try harness.client.commit(vm: vm.name, snapshot: snapshot)
      let model = try vm.tags()
      try vm.resume()
      let path = "\(directory)/\(snapshot)"
      let made = try CheckpointFile.create(path, metadata: [], deviceState: [])
      let disks = try DisksWriter(PartWriter(appendingTo: path)).finish()
      let pages = try harness.client.checkpoint(
        CheckpointOrder(snapshot: snapshot, base: base, path: path, kernel: nil))
      let header = CheckpointHeader(
        replica: Array(repeating: 1, count: 16), sequence: next, base: base == nil ? 0 : sequence,
        baseDigest: base == nil ? CheckpointHeader.noDigest : digest,
        ramBytes: UInt64(vm.pages) * 4096, metadata: made.metadata, deviceState: made.deviceState,
        disks: disks, pages: .init(offset: pages.offset, length: pages.length, digest: pages.digest))
      try made.file.seal(header)
      return (path, header, snapshot, model)
    }

    func apply(_ path: String, _ header: CheckpointHeader) throws {
      if header.isFull { standby = "r-\(vm.name)-\(header.sequence)" }
      let status = try harness.persistently {
        try harness.client.receive(standby: standby, parent: vm.name, path: path)
      }
      #expect(status.mark == StandbyMark(sequence: header.sequence, digest: header.digest))
    }

    /// It has arrived.
    func acknowledge(_ header: CheckpointHeader, _ snapshot: String) throws {
      if let base { try harness.persistently { try harness.client.drop(snapshot: base) } }
      (sequence, digest, base) = (header.sequence, header.digest, snapshot)
    }

    /// One checkpoint from the freeze to the acknowledgement. Answers the VM's pages of that moment.
    @discardableResult func checkpoint() throws -> [UInt64] {
      let (path, header, snapshot, model) = try take()
      try apply(path, header)
      try acknowledge(header, snapshot)
      unlink(path)
      return model
    }
  }

  /// What a clone of the standby sees.
  private func contents(_ replication: Replication) throws -> [UInt64] {
    let harness = replication.harness
    let guest = try harness.clone(of: replication.standby, "look", pages: Self.pages)
    defer { try? harness.end(guest) }
    return try guest.tags()
  }

  private func waitUntilFree(_ replication: Replication) throws {
    try replication.harness.eventually("the look is over") {
      try replication.harness.client.standbys().allSatisfy { $0.clones.isEmpty }
    }
  }

  @Test(arguments: 1...3) func theStandbyIsWhatTheVMWas(seed: UInt64) throws {
    let harness = try PagerHarness()
    defer { harness.close() }
    var random = SeededGenerator(seed: seed)
    let vm = try harness.guest("dev", pages: Self.pages)
    try vm.write(0..<1500, tag: 1000)
    let replication = try Replication(harness, vm)
    var kept: [String: [UInt64]] = [:]
    for round in 0..<25 {
      for _ in 0..<Int.random(in: 0..<6, using: &random) {
        let first = Int.random(in: 0..<Self.pages, using: &random)
        let range = first..<min(Self.pages, first + Int.random(in: 1...200, using: &random))
        if Int.random(in: 0..<4, using: &random) == 0 {
          try vm.zero(range)
        } else {
          try vm.write(range, tag: UInt64(round) << 32)
        }
      }
      // Forks come between: pre-images then lie in more than one snapshot.
      if Int.random(in: 0..<4, using: &random) == 0 {
        let fork = try harness.freeze(vm, as: "f\(round)")
        try vm.write(0..<Int.random(in: 1...300, using: &random), tag: UInt64(round) << 40)
        if Bool.random(using: &random) {
          try harness.client.drop(snapshot: "f\(round)")
        } else {
          kept["f\(round)"] = fork
        }
      }
      let model = try replication.checkpoint()
      let seen = try contents(replication)
      #expect(seen == model, "seed \(seed), round \(round)")
      try waitUntilFree(replication)
    }
    // Kept snapshots of the VM do not keep every checkpoint's.
    #expect(harness.snapshotsOnDisk().count { $0.hasPrefix("c") } == 1)
    for (name, model) in kept {
      let guest = try harness.clone(of: name, name + "-clone", pages: Self.pages)
      let seen = try guest.tags()
      #expect(seen == model, "seed \(seed), \(name)")
    }
  }

  @Test func aVMThatWritesAllTheTime() throws {
    let harness = try PagerHarness()
    defer { harness.close() }
    let vm = try harness.guest("dev", pages: Self.pages)
    try vm.write(0..<1500, tag: 1000)
    try vm.storm(seed: 4)
    let replication = try Replication(harness, vm)
    for round in 0..<15 {
      let model = try replication.checkpoint()
      let seen = try contents(replication)
      #expect(seen == model, "round \(round)")
      try waitUntilFree(replication)
    }
  }

  /// At any instruction of an application: afterwards it is the one or the other, and the checkpoint can be applied.
  @Test(arguments: 0..<16) func thePagerIsKilledWhileItApplies(step: UInt32) throws {
    let harness = try PagerHarness()
    defer { harness.close() }
    let vm = try harness.guest("dev", pages: Self.pages)
    try vm.write(0..<1500, tag: 1000)
    let replication = try Replication(harness, vm)
    let before = try replication.checkpoint()
    try vm.write(100..<1900, tag: 5 << 32)
    try vm.zero(300..<400)
    let (path, header, snapshot, model) = try replication.take()
    let done = DispatchSemaphore(value: 0)
    let (client, standby) = (harness.client, replication.standby)
    Thread.detachNewThread {
      _ = try? client.receive(standby: standby, parent: "dev", path: path)
      done.signal()
    }
    usleep(step * 1500)
    harness.killPager()
    done.wait()
    try harness.startPager()
    let status = try harness.persistently { try harness.client.standbys() }
    let held = try #require(status.first { $0.standby == replication.standby })
    let isNew = held.mark.sequence == header.sequence
    #expect(isNew || held.mark.sequence == header.base)
    let seen = try contents(replication)
    #expect(seen == (isNew ? model : before), "after \(step * 1500) µs")
    try waitUntilFree(replication)
    try replication.apply(path, header)
    try replication.acknowledge(header, snapshot)
    let after = try contents(replication)
    #expect(after == model)
    try waitUntilFree(replication)
    try vm.write(0..<50, tag: 9 << 32)
    let next = try replication.checkpoint()
    let last = try contents(replication)
    #expect(last == next)
  }

  @Test func whatDoesNotFollowIsRefused() throws {
    let harness = try PagerHarness()
    defer { harness.close() }
    let vm = try harness.guest("dev", pages: Self.pages)
    try vm.write(0..<200, tag: 1000)
    let replication = try Replication(harness, vm)
    try replication.checkpoint()
    try vm.write(0..<100, tag: 2000)
    let lost = try replication.take()
    let standby = replication.standby
    // Its changes are of another one than the standby has.
    try replication.acknowledge(lost.header, lost.snapshot)
    try vm.write(50..<150, tag: 3000)
    let next = try replication.take()
    let error = #expect(throws: MemtapError.self) {
      _ = try harness.client.receive(standby: standby, parent: "dev", path: next.path)
    }
    #expect(error?.cause == "it follows checkpoint 2, and 1 is here")
    // A clone stands on it.
    let clone = try harness.clone(of: standby, "look", pages: Self.pages)
    let refused = #expect(throws: MemtapError.self) {
      _ = try harness.client.receive(standby: standby, parent: "dev", path: lost.path)
    }
    #expect(refused?.cause == "VMs or snapshots stand on it")
    try harness.end(clone)
    try waitUntilFree(replication)
    try replication.apply(lost.path, lost.header)
    try replication.apply(next.path, next.header)
    // The same again does nothing.
    try replication.apply(next.path, next.header)
    let seen = try contents(replication)
    #expect(seen == next.model)
    // Without the snapshot of the last one all is sent.
    replication.base = nil
    replication.sequence = next.header.sequence
    let full = try replication.checkpoint()
    #expect(replication.standby != standby)
    let made = try contents(replication)
    #expect(made == full)
  }

  /// The standby runs, is written, and is replicated in turn.
  @Test func aVMThatWasMadeOfAStandby() throws {
    let harness = try PagerHarness()
    defer { harness.close() }
    let vm = try harness.guest("dev", pages: Self.pages)
    try vm.write(0..<1500, tag: 1000)
    let first = try Replication(harness, vm)
    let model = try first.checkpoint()
    let heir = try harness.clone(of: first.standby, "heir", pages: Self.pages)
    try harness.client.drop(snapshot: first.standby)
    try harness.end(vm)
    let second = try Replication(harness, heir)
    #expect(try second.checkpoint() == model)
    let copy = try contents(second)
    #expect(copy == model)
    try waitUntilFree(second)
    for round in 1...6 {
      try heir.write(round * 100..<round * 300, tag: UInt64(round) << 32)
      try heir.zero(round * 50..<round * 60)
      let now = try second.checkpoint()
      let seen = try contents(second)
      #expect(seen == now, "round \(round)")
      try waitUntilFree(second)
    }
  }
}
