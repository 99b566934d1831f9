import Support
import Testing

/// Every page of every clone is as it was at its fork point, whatever parent, siblings and ancestors write.
@Suite("Memory of clones", .serialized, .ownHost)
struct PatternTests {
  private let host: TestHost

  init() throws {
    host = try #require(TestHost.here)
    try host.device()
  }

  @Test("8 clones of 64 MiB see the fork point while the parent overwrites all of it")
  func eightClones() throws {
    let lines = try host.lines(inside: "dev", "sf-pattern 64 8")
    #expect(lines == (1...8).map { "\($0) exited 0 wrong 0 own 0" } + ["parent wrong 0"])
  }

  @Test("A second and a third fork of a parent leave the first one's clones right, which read later")
  func laterForks() throws {
    let lines = try host.lines(inside: "dev", "sf-pattern 32 3 3 700")
    let generation = (1...3).map { "\($0) exited 0 wrong 0 own 0" }
    #expect(lines == generation + generation + generation + ["parent wrong 0"])
  }

  @Test("A clone forks a clone which forks a clone, each writing between")
  func threeGenerations() throws {
    let lines = try host.lines(inside: "dev", "sf-generations 16 3")
    #expect(
      lines == [
        "1 exited 0 g1.1 wrong 0 own 0",
        "1 exited 0 g2.1 wrong 0 own 0",
        "1 exited 0 g3.1 wrong 0",
        "2 exited 0 g3.2 wrong 0 own 0",
        "2 exited 0 g2.2 wrong 0 own 0",
        "2 exited 0 g1.2 wrong 0 own 0",
        "g0 own 0",
      ])
  }

  @Test("The same parent again and again: each fork is of its own moment", arguments: 1...5)
  func again(_ time: Int) throws {
    let lines = try host.lines(inside: "dev", "sf-pattern 8 2")
    #expect(lines == (1...2).map { "\($0) exited 0 wrong 0 own 0" } + ["parent wrong 0"])
  }
}
