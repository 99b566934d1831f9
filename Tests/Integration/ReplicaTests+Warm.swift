import Foundation
import Support
import Testing

/// Clones on the standby's host.
extension ReplicaTests {
  @Test("A fork to the standby's host takes from it what was not written since")
  func warmFork() throws {
    let old = try fill("f", mebibytes: 16)
    func received(_ newest: String?) throws -> Int {
      let fork: ForkDocument = try host.document("fork", "dev", "-n", "1", "--host", "h2")
      defer {
        _ = try? host.sfctl("kill", fork.ticket)
        _ = try? host.sfctl("join", fork.ticket)
      }
      let seen = try digest(of: "/f", in: fork.clones[0].name)
      #expect(seen == old)
      if let newest {
        let written = try digest(of: "/g", in: fork.clones[0].name)
        #expect(written == newest)
      }
      return try host.stats(fork.ticket).bytesReceived
    }
    try replicate()
    defer { removeReplica() }
    let new = try fill("g", mebibytes: 2)
    let warm = try received(new)
    // The fork has gone: the standby goes on.
    #expect(try checkpoint().sequence == 2)
    #expect(eventually(seconds: 20) { (try? standby()?.sequence) == 2 })
    removeReplica()
    let cold = try received(new)
    #expect(cold > 16 << 20 && warm < cold / 3, "cold \(cold), warm \(warm)")
    // Now there is a working set: what the standby has of it does not come again, what was written since does.
    try replicate()
    let newest = try fill("g", mebibytes: 2)
    let again = try received(newest)
    #expect(again < cold / 3, "cold \(cold), warm with a working set \(again)")
  }

  @Test("Blocks of a program run in clones of the standby's host, warm, and the standby goes on")
  func warmOffload() throws {
    _ = try fill("f", mebibytes: 16)
    try replicate()
    defer { removeReplica() }
    let plain = try host.start(["exec", "dev", "--", "sf-blocks", "heap", "3"]).wait()
    struct Report: Decodable { var calls, offloaded: Int }
    let outcome = try host.start(
      ["offload", "dev", "--to", "h2", "--block", "block", "--json", "--", "sf-blocks", "heap", "3"]
    ).wait(seconds: 300)
    let report = try JSONDecoder().decode(Report.self, from: outcome.output)
    #expect(report.calls == 3 && report.offloaded == 3)
    #expect(outcome.status == plain.status && outcome.error.contains(plain.text))
    // Its clones have ended, and their snapshots no longer stand on the standby.
    #expect(eventually(seconds: 30) { host.hasNoClones })
    let last = try checkpoint().sequence
    #expect(eventually(seconds: 20) { (try? standby()?.sequence) == last })
  }
}
