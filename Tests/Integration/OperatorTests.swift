import Foundation
import Support
import Testing

/// sfctl as an operator uses it: what the contract promises of its commands, documents and exit statuses.
@Suite("sfctl with a real host", .serialized, .ownHost)
struct OperatorTests {
  private let host: TestHost

  init() throws {
    host = try #require(TestHost.here)
    try host.device()
  }

  @Test("fork: the document, and the clones in ps")
  func fork() throws {
    try host.withFork(clones: 3) { fork in
      #expect(fork.parent == "dev" && fork.requested == 3 && fork.granted == 3)
      #expect(fork.ramBytes == 256 << 20)
      // SnowFlock's bound: 1 MB of descriptor for 1 GiB of RAM, and the fixed part.
      #expect(fork.descriptorBytes > 0 && fork.descriptorBytes < 1 << 20)
      #expect(fork.parentPauseUs > 0 && fork.parentPauseUs < fork.forkUs)
      #expect(
        fork.clones.allSatisfy { $0.state == "running" && $0.activateUs > 0 && $0.readyUs > $0.activateUs })
      #expect(fork.clones.allSatisfy { $0.readyUs <= fork.forkUs })

      let clones = try host.vms().filter { $0.role == "clone" }
      #expect(Set(clones.map(\.name)) == Set(fork.clones.map(\.name)))
      #expect(clones.allSatisfy { $0.ticket == fork.ticket && $0.snapshot == fork.snapshot })
      #expect(clones.allSatisfy { $0.state == "running" && $0.memoryBytes == 256 << 20 })
      #expect(clones.allSatisfy { $0.privateBytes < $0.presentBytes && $0.presentBytes < $0.memoryBytes })
      for clone in clones { #expect(FileManager.default.fileExists(atPath: "/proc/\(clone.pid)")) }
    }
  }

  @Test("fork of a clone: a family tree by name, each with its own memory")
  func forkOfAClone() throws {
    try host.withFork(clones: 2) { first in
      let mother = first.clones[1].name
      try host.inside(mother, "sh", "-c", "echo mother >/tmp/who")
      try host.withFork(of: mother, clones: 2) { second in
        #expect(second.parent == mother)
        #expect(second.clones.allSatisfy { $0.name.hasPrefix(mother + ".") && $0.state == "running" })
        try host.inside(mother, "sh", "-c", "echo later >/tmp/who")
        for clone in second.clones {
          let told = try host.inside(clone.name, "sh", "-c", "cat /tmp/who; hostname")
          #expect(told == "mother\n\(clone.name)\n")
        }
      }
    }
    #expect(try host.sfctl("exec", "dev", "--", "test", "-e", "/tmp/who").status == 1)
  }

  @Test("daemon stop leaves VMs running; of several sfctl that find none, one starts the next")
  func daemonStop() throws {
    try host.withFork(clones: 1) { fork in
      let before = try host.vms()
      #expect(try host.sfctl("daemon", "stop").status == 0)
      #expect(host.pid(of: "sfd") == nil)
      let commands = try (1...5).map { _ in try host.start(["ps", "--json"]) }
      for command in commands {
        let outcome = try command.wait()
        #expect(outcome.status == 0, "\(outcome.error)")
      }
      let after = try host.vms()
      #expect(after.map(\.pid) == before.map(\.pid) && after.allSatisfy { $0.state == "running" })
      let told = try host.inside(fork.clones[0].name, "hostname")
      #expect(told == fork.clones[0].name + "\n")
    }
  }

  @Test("stats: every field of the contract, of a clone and of a ticket")
  func stats() throws {
    try host.withFork(clones: 2) { fork in
      for target in [fork.clones[0].name, fork.ticket] {
        let outcome = try host.sfctl("stats", target, "--json")
        #expect(outcome.status == 0, "\(outcome.error)")
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        let stats = try decoder.decode(StatsDocument.self, from: outcome.output)
        #expect(stats.pagesTotal > 0 && stats.pagesPresent <= stats.pagesTotal)
      }
    }
  }

  @Test("exec: 10 MB through cat, and exit statuses")
  func exec() throws {
    var generator = SystemRandomNumberGenerator()
    let words = (0..<10 << 17).map { _ in generator.next() }
    let bytes = words.withUnsafeBytes { Data($0) }
    let cat = try host.sfctl("exec", "dev", "--", "cat", input: bytes)
    #expect(cat.status == 0 && cat.output == bytes, "\(cat.error)")
    #expect(try host.sfctl("exec", "dev", "--", "sh", "-c", "exit 7").status == 7)
    let both = try host.sfctl("exec", "dev", "--", "sh", "-c", "echo out; echo err >&2")
    #expect(both.text == "out\n" && both.error == "err\n")
    #expect(
      try host.sfctl("exec", "--env", "WORD=x y", "dev", "--", "sh", "-c", "echo $WORD").text == "x y\n")
  }

  @Test("exec: signals reach the command")
  func signals() throws {
    let script = "trap 'echo term; exit 3' TERM; echo ready; while :; do sleep 0.1; done"
    let command = try host.start(["exec", "dev", "--", "sh", "-c", script])
    #expect(eventually { command.outputSoFar.contains("ready") })
    command.signal(SIGTERM)
    let outcome = try command.wait()
    #expect(outcome.status == 3 && outcome.text == "ready\nterm\n")
  }

  @Test("join: a time-out leaves the clones running, kill ends them, join says how")
  func join() throws {
    let fork: ForkDocument = try host.document("fork", "dev", "-n", "2")
    #expect(try host.sfctl("join", fork.ticket, "--timeout", "0.2").status == 1)
    #expect(try host.vms().filter { $0.role == "clone" }.count == 2)
    #expect(try host.sfctl("kill", fork.clones[0].name).status == 0)
    #expect(try host.vms().filter { $0.role == "clone" }.map(\.name) == [fork.clones[1].name])
    #expect(try host.sfctl("kill", fork.ticket).status == 0)
    let ends: JoinDocument = try host.document("join", fork.ticket)
    #expect(ends.statuses.map(\.vmid) == fork.clones.map(\.vmid))
    #expect(ends.statuses.allSatisfy { $0.how == "killed" && !$0.reason.isEmpty })
    #expect(try host.sfctl("join", fork.ticket).status == 3)
  }

  @Test("snapshot: cloned twice, also after its parent was destroyed")
  func snapshot() throws {
    try host.device("model")
    try host.inside("model", "sh", "-c", "head -c 8388608 /dev/urandom >/tmp/data; echo then >/tmp/when")
    let sum = try host.inside("model", "sha256sum", "/tmp/data")
    #expect(try host.sfctl("snapshot", "create", "model", "warm").status == 0)
    defer { _ = try? host.sfctl("snapshot", "rm", "warm") }
    #expect(try host.sfctl("snapshot", "create", "model", "warm").status == 4, "the name is taken")
    try host.inside("model", "sh", "-c", "echo now >/tmp/when; head -c 8388608 /dev/urandom >/tmp/data")

    var names: [String] = []
    for time in 1...2 {
      let fork: ForkDocument = try host.document("clone", "warm", "-n", "2")
      for clone in fork.clones {
        #expect(try host.inside(clone.name, "cat", "/tmp/when") == "then\n")
        #expect(try host.inside(clone.name, "sha256sum", "/tmp/data") == sum)
      }
      names += fork.clones.map(\.name)
      #expect(try host.sfctl("kill", fork.ticket).status == 0)
      #expect(try host.sfctl("join", fork.ticket).status == 0)
      if time == 1 { #expect(try host.sfctl("vm", "destroy", "model").status == 0) }
    }
    #expect(names.count == 4)
    #expect(try host.sfctl("snapshot", "rm", "warm").status == 0)
    #expect(try host.sfctl("snapshot", "rm", "warm").status == 3)
  }

  @Test("vm stop asks the guest, and the VM is gone")
  func stop() throws {
    try host.device("brief")
    #expect(try host.sfctl("vm", "stop", "brief").status == 0)
    #expect(try host.vm("brief") == nil)
    #expect(try host.sfctl("vm", "stop", "brief").status == 3)
  }

  /// The command, the exit status, and a word that the sentence must say.
  private static let refusals: [(command: String, status: Int32, word: String)] = [
    ("vm start dev", 4, "dev"),
    ("vm start other --image no-such-image", 1, "no-such-image"),
    ("vm start other --memory 16M", 2, "memory"),
    ("vm start other --memory 4000G", 4, "memory"),
    ("vm start other --memory banana", 2, "banana"),
    ("vm start ../x", 2, "../x"),
    ("vm destroy ghost", 3, "ghost"),
    ("fork ghost -n 2", 3, "ghost"),
    ("fork dev -n 0", 2, "-n"),
    ("fork dev", 2, "-n"),
    ("fork dev -n 100000", 2, "100000"),
    ("clone ghost -n 1", 3, "ghost"),
    ("snapshot create ghost s", 3, "ghost"),
    ("snapshot rm ghost", 3, "ghost"),
    ("exec ghost -- true", 3, "ghost"),
    ("join t-ghost", 3, "t-ghost"),
    ("kill ghost", 3, "ghost"),
    ("stats ghost", 3, "ghost"),
    ("fork dev -n 1 --host elsewhere", 3, "elsewhere"),
    ("no-such-command", 2, "no-such-command"),
  ]

  @Test(
    "Refused: one sentence on stderr, nothing on stdout, the right status, nothing left", arguments: refusals)
  func refused(_ refusal: (command: String, status: Int32, word: String)) throws {
    let outcome = try host.start(refusal.command.split(separator: " ").map(String.init)).wait()
    #expect(outcome.status == refusal.status, "\(outcome.error)")
    #expect(outcome.output.isEmpty)
    #expect(outcome.error.contains(refusal.word), "\(outcome.error)")
    if refusal.status != 2 {
      #expect(outcome.error.hasPrefix("sfctl: ") && outcome.error.hasSuffix(".\n"), "\(outcome.error)")
    }
    #expect(try host.vms().map(\.name) == ["dev"])
  }
}
