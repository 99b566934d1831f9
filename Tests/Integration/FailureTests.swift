import Foundation
import LinuxSystem
import Support
import Testing

/// Each process of a host is killed while clones run, and nothing that should not be is lost or wrong.
@Suite("When processes die", .serialized, .ownHost)
struct FailureTests {
  private let host: TestHost

  init() throws {
    host = try #require(TestHost.here)
    try host.device()
  }

  @Test(
    "The pager is killed three times while clones read and write: they wait, and no page is wrong",
    arguments: 1...2)
  func pager(_ time: Int) throws {
    let program = try host.start(["exec", "dev", "--", "sf-pattern", "48", "3", "1", "0", "4000"])
    _ = try runningClones(3)
    for _ in 0..<3 {
      usleep(UInt32.random(in: 0...400_000))
      var before: Int32?
      #expect(
        eventually {
          before = host.pid(of: "sf-memtap"); return before != nil
        })
      let killed = try #require(before)
      kill(killed, SIGKILL)
      #expect(
        eventually { host.pid(of: "sf-memtap").map { $0 != killed } ?? false },
        "no pager came after \(killed)")
    }
    let outcome = try program.wait()
    #expect(
      outcome.lines == (1...3).map { "\($0) exited 0 wrong 0 own 0" } + ["parent wrong 0"],
      "\(outcome.error)\n\(host.daemonLog.suffix(2000))")
  }

  @Test("The daemon is killed: VMs run on, the next one answers a program that waits in sf_join")
  func daemonWhileJoining() throws {
    try host.inside("dev", "sh", "-c", "rm -f /tmp/go; sf-wait 2 </dev/null >/tmp/wait.out 2>&1 &")
    #expect(try saidInTheEnd("dev", "cloned").contains("cloned"))
    let clones = try runningClones(2)

    try host.killDaemon()
    let adopted = try runningClones(2)
    #expect(adopted.map(\.pid) == clones.map(\.pid))
    for clone in clones { try letGo(clone) }
    let said = try saidInTheEnd("dev", "2 exited 20 went")
    #expect(said.contains("1 exited 10 went\n2 exited 20 went"), "\(said)\n\(host.daemonLog.suffix(3000))")
  }

  /// Waits until so many clones run: sf_clone returns in a parent before they do.
  private func runningClones(_ count: Int) throws -> [VMDocument] {
    var clones: [VMDocument] = []
    _ = try eventually {
      clones = try host.vms().filter { $0.role == "clone" && $0.state == "running" }
      return clones.count == count
    }
    var found = ""
    if clones.count != count {
      found = try "\(host.sfctl("exec", "dev", "--", "cat", "/tmp/wait.out").text)\n\(host.vms())"
    }
    try #require(clones.count == count, "\(found)\n\(host.daemonLog.suffix(2000))")
    return clones.sorted { $0.vmid < $1.vmid }
  }

  /// Lets sf-wait in the clone end, a moment after the command that tells it so.
  private func letGo(_ clone: VMDocument) throws {
    try host.inside(clone.name, "sh", "-c", "(sleep 0.3; touch /tmp/go) </dev/null >/dev/null 2>&1 &")
  }

  /// What sf-wait has written, once that contains `text`, or after a while.
  private func saidInTheEnd(_ vm: String, _ text: String) throws -> String {
    var said = ""
    _ = try eventually {
      said = try host.inside(vm, "cat", "/tmp/wait.out")
      return said.contains(text)
    }
    return said
  }

  @Test("The daemon is killed: the operator's ticket and a kept snapshot are still good")
  func daemonWithTicketAndSnapshot() throws {
    #expect(try host.sfctl("snapshot", "create", "dev", "kept").status == 0)
    defer { _ = try? host.sfctl("snapshot", "rm", "kept") }
    let fork: ForkDocument = try host.document("fork", "dev", "-n", "2")
    try host.inside(fork.clones[0].name, "sh", "-c", "echo mine >/tmp/mine")
    try host.killDaemon()

    #expect(try host.inside(fork.clones[0].name, "cat", "/tmp/mine") == "mine\n")
    let second: ForkDocument = try host.document("clone", "kept", "-n", "1")
    #expect(try host.inside(second.clones[0].name, "hostname") == second.clones[0].name + "\n")
    for ticket in [second.ticket, fork.ticket] {
      #expect(try host.sfctl("kill", ticket).status == 0)
      let ends: JoinDocument = try host.document("join", ticket)
      #expect(ends.statuses.allSatisfy { $0.how == "killed" && !$0.reason.isEmpty })
    }
  }

  /// libvirt lets go of a machine when its QEMU is out of the process table, and after the daemon's death that is
  /// another process's affair: here this one's, which takes its time as process 1 of a container may.
  @Test("Nobody collects the dead QEMUs of a killed daemon: the next clones have other names, and run")
  func uncollected() throws {
    try host.killDaemon()
    try ProcessSetup.becomeSubreaper()
    var dead: [Int32] = []
    defer {
      try? ProcessSetup.becomeSubreaper(false)
      for process in dead { waitpid(process, nil, 0) }
    }
    let first: ForkDocument = try host.document("fork", "dev", "-n", "2")
    dead = try [#require(host.pid(of: "sfd"))] + first.clones.compactMap { try host.vm($0.name)?.pid }
    try host.killDaemon()
    #expect(try host.sfctl("kill", first.ticket).status == 0)
    #expect(try host.sfctl("join", first.ticket).status == 0)
    try host.withFork(clones: 2) { second in
      #expect(Set(second.clones.map(\.name)).isDisjoint(with: first.clones.map(\.name)))
      for clone in second.clones { try #expect(host.inside(clone.name, "hostname") == clone.name + "\n") }
    }
  }

  @Test("Daemon and pager are killed together: the clones go on when both are back")
  func daemonAndPager() throws {
    try host.inside("dev", "sh", "-c", "sf-pattern 32 2 1 0 4000 </dev/null >/tmp/wait.out 2>&1 &")
    _ = try runningClones(2)
    let pager = try #require(host.pid(of: "sf-memtap"))
    let daemon = try #require(host.pid(of: "sfd"))
    kill(daemon, SIGKILL)
    kill(pager, SIGKILL)
    let said = try saidInTheEnd("dev", "parent")
    #expect(
      said == "1 exited 0 wrong 0 own 0\n2 exited 0 wrong 0 own 0\nparent wrong 0\n",
      "\(host.daemonLog.suffix(2000))")
  }

  @Test("A clone's QEMU is killed: sf_join says lost for it, the others end as they would")
  func clonesMachine() throws {
    let program = try host.start(["exec", "dev", "--", "sh", "-c", "rm -f /tmp/go; exec sf-wait 3"])
    #expect(eventually { program.outputSoFar.contains("cloned") })
    let clones = try runningClones(3)
    kill(clones[1].pid, SIGKILL)
    for clone in [clones[0], clones[2]] { try letGo(clone) }
    let ends = try program.wait().lines.suffix(3)
    #expect(ends.first == "1 exited 10 went" && ends.last == "3 exited 30 went", "\(ends)")
    let lost = try #require(ends.dropFirst().first)
    #expect(lost.hasPrefix("2 lost ") && lost.count > "2 lost ".count, "\(lost)")
  }

  @Test("The parent's QEMU is killed: the operator's clones go on with right pages, or end and say why")
  func parentsMachine() throws {
    try host.device("mother")
    try host.inside("mother", "sh", "-c", "head -c 33554432 /dev/urandom >/tmp/data")
    let sum = try host.inside("mother", "sha256sum", "/tmp/data")
    let fork: ForkDocument = try host.document("fork", "mother", "-n", "2")
    kill(try #require(try host.vm("mother")).pid, SIGKILL)
    #expect(try eventually { try host.vm("mother").map { $0.state != "running" } ?? true })

    for clone in fork.clones {
      let outcome = try host.sfctl("exec", clone.name, "--", "sha256sum", "/tmp/data")
      if outcome.status == 0 { #expect(outcome.text == sum) }
    }
    _ = try host.sfctl("kill", fork.ticket)
    let ends: JoinDocument = try host.document("join", fork.ticket)
    #expect(ends.statuses.count == 2 && ends.statuses.allSatisfy { !$0.reason.isEmpty })
  }

  @Test("The parent's QEMU is killed while its program's clones run: they are ended, and nothing is left")
  func parentsMachineWhileJoining() throws {
    try host.device("mother")
    try host.inside("mother", "sh", "-c", "sf-wait 2 </dev/null >/tmp/wait.out 2>&1 &")
    #expect(try saidInTheEnd("mother", "cloned").contains("cloned"))
    kill(try #require(try host.vm("mother")).pid, SIGKILL)
    #expect(try eventually { try host.vms().map(\.name) == ["dev"] })
    #expect(host.daemonLog.contains("mother ended: its QEMU died"))
  }
}
