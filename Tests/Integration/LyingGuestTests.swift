import Foundation
import Support
import Testing

/// A guest whose agent breaks the rules of the channel is cut off and told of once; nobody else feels it.
/// The lies are those of guest/sf-liar.c, told by the init of the image mini-liar.
@Suite("Guests that lie", .serialized, .ownHost)
struct LyingGuestTests {
  private let host: TestHost

  init() throws {
    host = try #require(TestHost.here)
    try host.device()
  }

  @Test(
    "The liar is cut off, told of once, and the others go on",
    arguments: ["garbage", "length", "checksum", "unknown", "direction", "flood", "forged", "fields"])
  func lie(_ lie: String) throws {
    let daemon = try #require(host.pid(of: "sfd"))
    let resident = try residentKiB(daemon)
    try host.device(
      "liar", image: try host.image("liar-\(lie)", like: "mini-liar", withParameter: "liar=\(lie)"),
      options: ["--no-network"])
    defer { _ = try? host.sfctl("vm", "destroy", "liar") }
    let before = told().count
    // The first meets the lie, the second finds the agent cut off.
    for _ in 1...2 {
      let refused = try host.sfctl("exec", "liar", "--", "true")
      #expect(refused.status == 1 && refused.error.contains("liar"), "\(refused.status) \(refused.error)")
      #expect(eventually { told().count > before }, "\(host.daemonLog.suffix(1500))")
    }
    #expect(try host.sfctl("fork", "liar", "-n", "1").status != 0)
    try host.withFork(clones: 1) { fork in
      let said = try host.inside(fork.clones[0].name, "echo", "here")
      #expect(said == "here\n")
    }
    #expect(told().count == before + 1, "\(told())")
    #expect(host.pid(of: "sfd") == daemon)
    #expect(try residentKiB(daemon) < resident + 64 << 10)
    #expect(try host.sfctl("vm", "destroy", "liar").status == 0)
  }

  private func told() -> [String] {
    host.daemonLog.split(separator: "\n").map(String.init).filter { $0.contains("cut off") }
  }

  private func residentKiB(_ pid: Int32) throws -> Int {
    let status = try String(contentsOfFile: "/proc/\(pid)/status", encoding: .utf8)
    let line = try #require(status.split(separator: "\n").first { $0.hasPrefix("VmRSS:") })
    return try #require(line.split(separator: " ").dropFirst().first.flatMap { Int($0) })
  }
}
