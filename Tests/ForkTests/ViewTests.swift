import Fork
import Testing

struct ViewTests {
  @Test func `a guest's residency is read from the mappings of its RAM only`() {
    let smaps = """
      7fc473c00000-7fc483c00000 rw-p 00000000 00:28 30   /run/snowfork/mem/cache/snapshots/s-1/pages
      Size:             262144 kB
      Rss:               21768 kB
      Private_Dirty:      1844 kB
      Anonymous:          1840 kB
      7fc483c00000-7fc487c00000 rw-p 00000000 00:00 0
      Rss:                4096 kB
      Anonymous:          4096 kB
      7fc487c00000-7fc487e00000 rw-p 14000000 00:28 30   /run/snowfork/mem/cache/snapshots/s-1/pages
      Rss:                  12 kB
      Anonymous:             8 kB
      7fc4a0000000-7fc4a8000000 rw-p 00000000 00:00 0
      Rss:                9999 kB
      Anonymous:          9999 kB
      7fc4b0000000-7fc4b1000000 rw-s 00000000 00:28 31   /run/snowfork/memory-of-another
      Rss:                 777 kB
      """
    let memory = GuestResidency.parse(smaps, below: "/run/snowfork/mem", ramBytes: 322 << 20)
    #expect(memory.presentBytes == (21768 + 4096 + 12) << 10)
    #expect(memory.privateBytes == (1840 + 4096 + 8) << 10)
  }

  @Test func `phases are in order, and activation is split where the last clone ran`() {
    var log = PhaseLog()
    for phase in [ForkPhase.arm, .prepare, .freeze] {
      log.begin(phase)
      log.end()
    }
    log.begin(.activate)
    log.endActivation(at: log.elapsedMicroseconds)
    for (earlier, later) in zip(log.entries, log.entries.dropFirst()) {
      #expect(earlier.beginMicroseconds <= earlier.endMicroseconds)
      #expect(earlier.endMicroseconds <= later.beginMicroseconds)
    }
    // These passed beside others.
    log.insert(.distribute, 2...4)
    log.insert(.descriptor, 1...3)
    #expect(
      log.entries.map(\.phase) == [.arm, .prepare, .freeze, .descriptor, .distribute, .activate, .ready])
  }

  @Test(arguments: [
    (UInt64(1 << 30), "1 GiB"), (1_288_490_189, "1.2 GiB"), (256 << 20, "256 MiB"), (4096, "4 KiB"),
    (17, "17 bytes"),
  ])
  func `bytes are told in the unit that fits`(bytes: UInt64, text: String) {
    #expect(byteText(bytes) == text)
  }
}
