import Glibc
import Memtap
import Testing

/// Forks at random moments of random VMs, writes everywhere, drops, ends and pager deaths, from a printed seed; every
/// page of every VM is compared with a model.
@Suite(.serialized) struct RandomWorkloadTests {
  private static let pages = 1024

  private final class Machine {
    let guest: TestGuest
    var model: [UInt64]
    init(_ guest: TestGuest, _ model: [UInt64]) {
      self.guest = guest
      self.model = model
    }
  }

  @Test(arguments: 0..<4) func everyPageOfEveryCloneIsRight(run: Int) throws {
    let seed = UInt64.random(in: 0 ..< .max)
    var random = SeededGenerator(seed: seed)
    let harness = try PagerHarness()
    defer { harness.close() }
    let pages = Self.pages
    let root = Machine(try harness.guest("m0", pages: pages), Array(repeating: 0, count: pages))
    var machines = [root]
    var snapshots: [(id: String, model: [UInt64])] = []
    var number = 0
    func range() -> Range<Int> {
      let first = Int.random(in: 0..<pages, using: &random)
      return first..<min(pages, first + Int.random(in: 1...200, using: &random))
    }
    for step in 0..<150 {
      let machine = machines.randomElement(using: &random)!
      number += 1
      switch Int.random(in: 0..<100, using: &random) {
      case 0..<30:
        let range = range()
        let tag = UInt64(number) << 32
        if Bool.random(using: &random) {
          try machine.guest.write(range, tag: tag)
        } else {
          try machine.guest.fill(range, tag: tag)
        }
        for page in range { machine.model[page] = tag + UInt64(page) }
      case 30..<35:
        let range = range()
        try machine.guest.zero(range)
        for page in range { machine.model[page] = 0 }
      case 35..<65:
        let range = range()
        #expect(try machine.guest.tags(range) == Array(machine.model[range]), "seed \(seed) step \(step)")
      case 65..<75:
        // What is written between arm and commit belongs to the snapshot.
        try harness.client.arm(vm: machine.guest.name)
        let range = range()
        try machine.guest.write(range, tag: UInt64(number) << 32)
        for page in range { machine.model[page] = UInt64(number) << 32 + UInt64(page) }
        _ = try harness.client.commit(vm: machine.guest.name, snapshot: "s\(number)")
        snapshots.append(("s\(number)", machine.model))
      case 75..<87:
        guard let snapshot = snapshots.randomElement(using: &random), machines.count < 12 else { continue }
        let guest = try harness.clone(of: snapshot.id, "m\(number)", pages: pages)
        machines.append(Machine(guest, snapshot.model))
      case 87..<91:
        guard snapshots.count > 2 else { continue }
        let index = Int.random(in: 0..<snapshots.count, using: &random)
        try harness.client.drop(snapshot: snapshots.remove(at: index).id)
      case 91..<95:
        guard machines.count > 3, machine !== root else { continue }
        // As the daemon does before it ends an origin.
        for snapshot in try harness.client.statistics().snapshots where snapshot.origin == machine.guest.name
        {
          try harness.client.complete(snapshot: snapshot.snapshot)
        }
        try harness.end(machine.guest)
        machines.removeAll { $0 === machine }
      default:
        harness.killPager()
        try harness.startPager()
      }
    }
    for machine in machines {
      #expect(try machine.guest.tags() == machine.model, "seed \(seed), \(machine.guest.name)")
    }
    for snapshot in snapshots {
      let guest = try harness.clone(of: snapshot.id, "last-\(snapshot.id)", pages: pages)
      #expect(try guest.tags() == snapshot.model, "seed \(seed), \(snapshot.id)")
      try harness.client.drop(snapshot: snapshot.id)
    }
  }
}
