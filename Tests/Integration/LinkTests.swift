import Foundation
import Support
import Testing

/// Hosts behind slow links: h1 as the paper's phone on WiFi, h2 on 3G, h3 and h4 at the cable.
@Suite(
  "Slow links between hosts", .serialized,
  .ownLab(hosts: 4, options: ["--link", "wifi", "--link", "h2=3g", "--link", "h3=lan"]))
struct LinkTests {
  private let host: TestHost

  init() throws { host = try #require(TestHost.here) }

  private func address(_ name: String) throws -> String {
    String(try #require(try host.hostAddress(name)).split(separator: ":")[0])
  }

  /// The least round trip of three, milliseconds.
  private func ping(_ from: String, _ to: String) throws -> Double {
    let outcome = try host.command(on: from, ["ping", "-q", "-c", "3", "-i", "0.5", try address(to)]).wait()
    let figures = outcome.lines.last { $0.contains("min/avg/max") }?.split(separator: "=").last
    return try #require(
      figures?.split(separator: "/").first.flatMap { Double($0.trimmingCharacters(in: .whitespaces)) },
      "\(from) to \(to): \(outcome.text)\(outcome.error)")
  }

  /// By far: what is at least so by the delay, and what is not.
  @Test("A round trip takes what the links on its way take; hosts at the cable are as near as ever")
  func delay() throws {
    #expect(try host.labLinks() == ["wifi", "3g", "lan", "lan"])
    let near = try ping("h3", "h4")
    let wifi = try ping("h1", "h3"), back = try ping("h4", "h1"), mobile = try ping("h4", "h2")
    #expect(near < 33 && wifi >= 66 && back >= 66 && mobile >= 415, "\(near) \(wifi) \(back) \(mobile)")
    #expect(try ping("h2", "h1") >= 481)
  }

  @Test("Bytes arrive as they were sent, up and down", arguments: [("h1", "h3"), ("h3", "h1")])
  func bytes(from sender: String, to receiver: String) throws {
    let program = ProjectFiles.root + "/build/tests/sf-net"
    let sent = host.directory + "/scratch/sent", received = host.directory + "/scratch/received"
    #expect(
      try host.command(on: sender, ["sh", "-c", "head -c 500000 /dev/urandom >\(sent)"]).wait().status == 0)
    let taking = try host.command(
      on: receiver, ["sh", "-c", "\(program) take 5000 >\(received) 2>\(received).said"])
    #expect(eventually { (try? String(contentsOfFile: received + ".said", encoding: .utf8)) == "taking\n" })
    let sending = try host.command(
      on: sender, ["sh", "-c", "\(program) send \(try address(receiver)) 5000 <\(sent)"])
    #expect(try sending.wait().status == 0 && taking.wait().status == 0)
    #expect(FileManager.default.contentsEqual(atPath: sent, andPath: received))
  }

  @Test("A host's link is another one when the command returns, and the first one again")
  func change() throws {
    #expect(try host.sfctl("lab", "link", "h2=lan").status == 0)
    #expect(try host.labLinks() == ["wifi", "lan", "lan", "lan"])
    #expect(try ping("h4", "h2") < 33)
    #expect(try host.sfctl("lab", "link", "h2=3g").status == 0)
    #expect(try ping("h4", "h2") >= 415)
    let refused = try host.sfctl("lab", "link", "h3=wifi")
    #expect(refused.status == 4 && refused.error.contains("--link h3=wifi"), "\(refused.error)")
    #expect(try host.sfctl("lab", "link", "h9=wifi").status == 3)
    #expect(try host.sfctl("lab", "link", "h2=5g").status == 2)
  }

  @Test("The hosts are one cluster over it, and a cut link is mended")
  func cluster() throws {
    #expect(try host.on("h2", "ps").status == 0)
    _ = try host.sfctl("lab", "cut", "h1")
    let lost = try host.command(on: "h3", ["ping", "-q", "-c", "2", "-W", "1", try address("h1")]).wait()
    #expect(lost.text.contains("100% packet loss"), "\(lost.text)")
    _ = try host.sfctl("lab", "mend", "h1")
    #expect(try eventually { try ping("h3", "h1") >= 66 })
  }
}

/// The end of a lab whose processes do not all go when they are told to.
@Suite("The end of a lab", .serialized, .ownLab(hosts: 2, options: ["--link", "h2=wifi"]))
struct LabEndTests {
  private let host: TestHost

  init() throws { host = try #require(TestHost.here) }

  /// What is left is a failure of the suite.
  @Test("A daemon that stands still, a dead one with a VM and a relay that is gone do not hold lab down up")
  func daemonsThatDoNotEnd() throws {
    try host.device("slow", options: ["--cpu-limit", "50"])
    for pid in host.pids(of: "sfd", on: "h1") { kill(pid, SIGKILL) }
    for pid in host.pids(of: "sfd", on: "h2") { kill(pid, SIGSTOP) }
    let relays = host.pids(of: "sfctl", on: "h2")
    #expect(relays.count == 1)
    for pid in relays { kill(pid, SIGKILL) }
    let outcome = try host.start(["lab", "down"]).wait(seconds: 80)
    #expect(outcome.status == 0 && outcome.error == "", "\(outcome.error)")
    #expect(eventually { Self.limits().isEmpty })
  }

  private static func limits() -> [String] {
    ["/sys/fs/cgroup/cpu/snowfork", "/sys/fs/cgroup/snowfork"]
      .flatMap { (try? FileManager.default.contentsOfDirectory(atPath: $0)) ?? [] }
      .filter { $0.hasPrefix("slow.") }
  }
}
