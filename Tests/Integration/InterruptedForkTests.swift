import Foundation
import Support
import Testing

/// What a fork was doing when the daemon died is undone by the next one.
@Suite("Forks that are interrupted", .serialized, .ownHost)
struct InterruptedForkTests {
  private let host: TestHost

  init() throws {
    host = try #require(TestHost.here)
    try host.device()
  }

  @Test(
    "The daemon is killed in the middle of a fork: no half-made clone is left, and the parent forks again")
  func daemonWhileForking() throws {
    for _ in 0..<4 {
      let fork = try host.start(["fork", "dev", "-n", "3", "--json"])
      usleep(UInt32.random(in: 0...800_000))
      try host.killDaemon()
      let outcome = try fork.wait()
      #expect(outcome.status == 0 || !outcome.error.isEmpty)

      let clones = try host.vms().filter { $0.role == "clone" }
      #expect(clones.allSatisfy { $0.state == "running" }, "\(clones)")
      for clone in clones { #expect(try host.inside(clone.name, "hostname") == clone.name + "\n") }
      for ticket in try host.tickets() {
        #expect(try host.sfctl("kill", ticket).status == 0)
        #expect(try host.sfctl("join", ticket).status == 0)
      }
      #expect(try host.vms().map(\.name) == ["dev"])
    }
    let lines = try host.lines(inside: "dev", "sf-pattern 8 2")
    #expect(lines == (1...2).map { "\($0) exited 0 wrong 0 own 0" } + ["parent wrong 0"])
  }
}
