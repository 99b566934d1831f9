import Foundation
import Support
import Testing

/// Clones on several hosts: every page is as it was at the fork point, over a network that loses datagrams too.
@Suite("Clones on many hosts", .serialized, .ownLab(hosts: 3))
struct LabTests {
  private let host: TestHost

  init() throws {
    host = try #require(TestHost.here)
    try host.device()
  }

  @Test("A ticket spans the hosts, each clone answers as itself, and join hears of all")
  func spread() throws {
    try host.withFork(clones: 6) { fork in
      #expect(
        Dictionary(grouping: fork.clones, by: \.host).mapValues(\.count) == ["h1": 2, "h2": 2, "h3": 2])
      #expect(fork.clones.allSatisfy { $0.state == "running" })
      for clone in fork.clones {
        #expect(try host.inside(clone.name, "hostname") == clone.name + "\n")
      }
      let vms = try host.vms()
      #expect(vms.first { $0.name == "dev.6" }?.host == "h3")
      // What needs a VM's memory is asked of its host.
      let refused = try host.sfctl("fork", "dev.6", "-n", "1")
      #expect(refused.status == 4 && refused.error.contains("it runs on host h3. Run this command there."))
    }
    #expect(try host.vms().map(\.name) == ["dev"])
  }

  @Test("A program names the host of its clones")
  func named() throws {
    let program = try host.start(["exec", "dev", "--", "sf-wait", "3", "h2"])
    func clones() throws -> [VMDocument] { try host.vms().filter { $0.role == "clone" } }
    #expect(try eventually { try clones().count { $0.state == "running" } == 3 })
    let clones = try clones()
    #expect(clones.map(\.host) == ["h2", "h2", "h2"])
    // A clone that goes may take the command's answer with it.
    for clone in clones { _ = try host.sfctl("exec", clone.name, "--", "touch", "/tmp/go") }
    let outcome = try program.wait()
    #expect(outcome.lines.suffix(3) == (1...3).map { "\($0) exited \($0 * 10) went" }, "\(outcome.error)")
    let nowhere = try host.start(["exec", "dev", "--", "sf-wait", "1", "h9"]).wait()
    #expect(nowhere.lines == ["sf_request_ticket_on: No such file or directory"])
  }

  @Test("6 clones on 3 hosts see the fork point while the parent overwrites all of it", arguments: [0, 20])
  func pattern(lossPercent: Int) throws {
    _ = try host.sfctl("lab", "loss", "\(lossPercent)")
    defer { _ = try? host.sfctl("lab", "loss", "0") }
    // A descriptor's TCP may stand still for long on such a network.
    let outcome = try host.start(["exec", "dev", "--", "sf-pattern", "24", "6"]).wait(seconds: 300)
    #expect(outcome.lines == (1...6).map { "\($0) exited 0 wrong 0 own 0" } + ["parent wrong 0"])
  }

  @Test("A clone on another host forks a clone there and here, three generations")
  func generations() throws {
    let lines = try host.lines(inside: "dev", "sf-generations 16 3")
    #expect(lines.contains("1 exited 0 g3.1 wrong 0") && lines.contains("2 exited 0 g1.2 wrong 0 own 0"))
    #expect(!lines.contains { $0.contains("wrong") && !$0.contains("wrong 0") })
  }

  @Test("Pages travel by multicast, once for all; by unicast when it is asked for")
  func transports() throws {
    var sent: [Int] = []
    for transport in ["multicast", "unicast"] {
      let fork: ForkDocument = try host.document("fork", "dev", "-n", "6", "--transport", transport)
      defer {
        _ = try? host.sfctl("kill", fork.ticket)
        _ = try? host.sfctl("join", fork.ticket)
      }
      let stats = try host.stats(fork.ticket)
      #expect(stats.mcdist.requests > 0 && stats.mcdist.served > 0)
      #expect(stats.remoteFaultUs.p50 > 0)
      if transport == "multicast" { #expect(stats.mcdist.lockstepSuppressed > 0) }
      sent.append(stats.mcdist.bytesSent)
    }
    #expect(sent[0] < sent[1])
  }

  @Test("A host that was cut off for 10 s goes on where it was")
  func cutOff() throws {
    let fork: ForkDocument = try host.document("fork", "dev", "-n", "3")
    defer {
      _ = try? host.sfctl("kill", fork.ticket)
      _ = try? host.sfctl("join", fork.ticket)
    }
    _ = try host.sfctl("lab", "cut", "h3")
    sleep(10)
    _ = try host.sfctl("lab", "mend", "h3")
    for clone in fork.clones {
      #expect(
        try host.inside(clone.name, "sh", "-c", "ls -R /usr /lib >/dev/null; hostname") == clone.name + "\n")
    }
  }

  @Test("The pagers of the origin and of a clone's host are killed in mid-distribution: no page is wrong")
  func pagersKilled() throws {
    let program = try host.start(["exec", "dev", "--", "sf-pattern", "24", "6", "1", "0", "4000"])
    #expect(eventually { (try? host.vms().count { $0.role == "clone" && $0.state == "running" }) == 6 })
    for name in ["h1", "h2", "h1"] {
      for pid in host.pids(of: "sf-memtap", on: name) { kill(pid, SIGKILL) }
      usleep(500_000)
    }
    let outcome = try program.wait()
    #expect(
      outcome.lines == (1...6).map { "\($0) exited 0 wrong 0 own 0" } + ["parent wrong 0"],
      "\(outcome.error)\n\(host.daemonLog.suffix(3000))")
  }

  @Test("A host's pager stands still for 3 s in mid-distribution: its clones wait, the others do not")
  func stalled() throws {
    let program = try host.start(["exec", "dev", "--", "sf-pattern", "24", "6", "1", "0", "4000"])
    #expect(eventually { (try? host.vms().count { $0.role == "clone" && $0.state == "running" }) == 6 })
    for pid in host.pids(of: "sf-memtap", on: "h3") { kill(pid, SIGSTOP) }
    sleep(3)
    for pid in host.pids(of: "sf-memtap", on: "h3") { kill(pid, SIGCONT) }
    let outcome = try program.wait()
    #expect(
      outcome.lines == (1...6).map { "\($0) exited 0 wrong 0 own 0" } + ["parent wrong 0"],
      "\(outcome.error)\n\(host.daemonLog.suffix(3000))")
  }

  @Test(
    "The home's daemon is killed at any moment of a fork: no host keeps anything of it",
    arguments: [30, 90, 250])
  func killedInFork(milliseconds: UInt32) throws {
    let fork = try host.start(["fork", "dev", "-n", "6"])
    #expect(eventually { (try? host.tickets().isEmpty) == false })
    usleep(milliseconds * 1000)
    for pid in host.pids(of: "sfd", on: "h1") { kill(pid, SIGKILL) }
    let outcome = try fork.wait()
    for ticket in try host.tickets() {
      #expect(try host.sfctl("kill", ticket).status == 0)
      #expect(try host.sfctl("join", ticket).status == 0)
    }
    for name in ["h1", "h2", "h3"] {
      #expect(
        eventually(seconds: 20) {
          host.pids(of: "qemu-system-x86_64", on: name).count == (name == "h1" ? 1 : 0)
        }, "\(name) after \(milliseconds) ms: \(outcome.error)")
    }
    try host.withFork(clones: 3) { fork in #expect(fork.clones.allSatisfy { $0.state == "running" }) }
  }

  @Test("The home's daemon is killed while clones run on other hosts: the next one joins them")
  func homeKilled() throws {
    let fork: ForkDocument = try host.document("fork", "dev", "-n", "6")
    for pid in host.pids(of: "sfd", on: "h1") { kill(pid, SIGKILL) }
    #expect(eventually { (try? host.vms().count { $0.role == "clone" && $0.state == "running" }) == 6 })
    for clone in fork.clones { #expect(try host.inside(clone.name, "hostname") == clone.name + "\n") }
    _ = try host.sfctl("kill", fork.ticket)
    let join: JoinDocument = try host.document("join", fork.ticket)
    #expect(join.statuses.map(\.how) == Array(repeating: "killed", count: 6))
  }
}

/// Hosts die.
@Suite("When hosts die", .serialized, .ownLab(hosts: 3))
struct LabFailureTests {
  private let host: TestHost

  init() throws {
    host = try #require(TestHost.here)
    try host.device()
  }

  @Test("A host dies: its clones are lost, with the reason, and the others go on")
  func hostDies() throws {
    let fork: ForkDocument = try host.document("fork", "dev", "-n", "3")
    host.killHost("h3")
    #expect(eventually(seconds: 60) { (try? host.vms().contains { $0.name == "dev.3" }) == false })
    for clone in fork.clones where clone.host != "h3" {
      #expect(try host.inside(clone.name, "hostname") == clone.name + "\n")
    }
    _ = try host.sfctl("kill", fork.ticket)
    let join: JoinDocument = try host.document("join", fork.ticket)
    #expect(join.statuses.filter { $0.how == "lost" }.count == 1)
    #expect(join.statuses.first { $0.how == "lost" }?.reason.contains("h3") == true)
  }

  @Test("The origin's host dies: clones that lack pages are lost and say why; those that were pushed live on")
  func originDies() throws {
    let start = try host.on("h2", "vm", "start", "far", "--image", ProjectFiles.image("mini-tests"))
    #expect(start.status == 0, "\(start.error)")
    let pushed = try host.on("h2", "fork", "far", "-n", "1", "--host", "h1", "--push", "--json")
    #expect(pushed.status == 0, "\(pushed.error)")
    #expect(eventually(seconds: 60) { (try? host.stats("far.1"))?.whole == true })
    let bare = try host.on("h2", "fork", "far", "-n", "1", "--host", "h1", "--json")
    #expect(bare.status == 0, "\(bare.error)")

    host.killHost("h2")
    #expect(eventually(seconds: 60) { (try? host.vms().contains { $0.name == "far.2" }) == false })
    #expect(try host.inside("far.1", "sh", "-c", "ls -R / >/dev/null; hostname") == "far.1\n")
    _ = try host.sfctl("kill", "far.1")
  }

  @Test("A host that is removed, and one that was never enrolled, are refused")
  func refused() throws {
    let member = try host.on("h3", "exec", "dev", "--", "hostname")
    #expect(member.text == "mini\n", "\(member.error)")
    #expect(try host.sfctl("fork", "dev", "-n", "1", "--host", "h9").status == 3)
    #expect(try host.sfctl("host", "rm", "h3").status == 0)
    #expect(try host.sfctl("host", "rm", "h3").status == 3)
    #expect(try host.on("h3", "exec", "dev", "--", "hostname").status != 0)
    #expect(try host.sfctl("fork", "dev", "-n", "1", "--host", "h3").status == 3)

    // Without a certificate no call is answered, nor with one of another authority.
    let address = try #require(try host.hostAddress("h1"))
    let key = host.directory + "/stranger.key", certificate = host.directory + "/stranger.pem"
    let script = """
      openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=h2 \
        -keyout \(key) -out \(certificate) 2>/dev/null
      for identity in '' '-key \(key) -cert \(certificate)'; do
        (printf 'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n'; sleep 2) |
          openssl s_client $identity -connect \(address) -alpn h2 2>&1 | grep -o 'tls[a-z0-9 ]* alert[a-z ]*'
      done
      """
    let outcome = try host.start(["lab", "exec", "h2", "--", "sh", "-c", script]).wait()
    #expect(outcome.lines.count == 2, "\(outcome.text)\(outcome.error)")
  }
}
