import Foundation
import Support
import Testing

/// Commands that a guest runs in clones of its own: sf-exec, and sf_run of the library.
@Suite("Commands in clones", .serialized, .ownHost)
struct RunTests {
  private let host: TestHost

  init() throws {
    host = try #require(TestHost.here)
    try host.device()
  }

  @Test("Streams and the exit status pass through; a program that is not there is 127")
  func streams() throws {
    try host.withFork(clones: 2) { fork in
      let name = fork.clones[1].name
      let outcome = try host.sfctl(
        "exec", "dev", "--", "sf-exec", name, "sh", "-c", "cat; hostname; echo error >&2; exit 3",
        input: Data("input\n".utf8))
      #expect(outcome.text == "input\n\(name)\n" && outcome.error == "error\n" && outcome.status == 3)
      let missing = try host.sfctl("exec", "dev", "--", "sf-exec", name, "/nonexistent")
      #expect(
        missing.status == 127 && missing.error.hasPrefix("sf-exec: cannot run /nonexistent in \(name): "))
      #expect(
        try host.sfctl("exec", "dev", "--", "sf-rsh", "-x", name, "\"echo\"", "a", "\"b  c\"").text
          == "a b  c\n")
    }
  }

  @Test("4 MB through cat in a clone, both ways at once")
  func bulk() throws {
    var generator = SystemRandomNumberGenerator()
    let bytes = (0..<4 << 17).map { _ in generator.next() }.withUnsafeBytes { Data($0) }
    try host.withFork(clones: 1) { fork in
      let outcome = try host.sfctl("exec", "dev", "--", "sf-exec", fork.clones[0].name, "cat", input: bytes)
      #expect(outcome.status == 0 && outcome.output == bytes, "\(outcome.error)")
    }
  }

  @Test("Signals reach the command; it ends with the process that asked for it")
  func signals() throws {
    try host.withFork(clones: 1) { fork in
      let name = fork.clones[0].name
      let script = "trap 'echo term; exit 3' TERM; echo ready; while :; do sleep 0.1; done"
      let command = try host.start(["exec", "dev", "--", "sf-exec", name, "sh", "-c", script])
      #expect(eventually { command.outputSoFar.contains("ready") })
      command.signal(SIGTERM)
      let outcome = try command.wait()
      #expect(outcome.status == 3 && outcome.text == "ready\nterm\n", "\(outcome.error)")

      // Of one that prints without end to nobody and does not mind hang-ups, too.
      let stubborn = "trap \"\" HUP TERM; touch /tmp/runs; while :; do echo more; done"
      let hung = try host.start([
        "exec", "dev", "--", "sh", "-c", "sf-exec \(name) sh -c '\(stubborn)' | sleep 600",
      ])
      func runs() throws -> Bool {
        try host.sfctl("exec", name, "--", "sh", "-c", "ps | grep -q '[t]mp/runs'").status == 0
      }
      #expect(try eventually { try runs() })
      try host.inside("dev", "killall", "-9", "sf-exec")
      #expect(try eventually { try !runs() })
      try host.inside("dev", "killall", "sleep")
      _ = try hung.wait()
    }
  }

  @Test("A VM that is not its own clone is refused, whether it is there or not")
  func notOwn() throws {
    try host.device("other")
    defer { _ = try? host.sfctl("vm", "destroy", "other") }
    try host.withFork(clones: 2) { fork in
      let (first, second) = (fork.clones[0].name, fork.clones[1].name)
      let refusals = [
        ("dev", "other"), ("dev", "nobody"), ("dev", "dev"), ("dev", first + ".1"), ("dev", first + "."),
        (first, "dev"), (first, second), (first, "other"), ("other", first), ("other", "dev"),
      ]
      for (asker, name) in refusals {
        let outcome = try host.sfctl("exec", asker, "--", "sf-exec", name, "hostname")
        #expect(outcome.status == 255 && outcome.text.isEmpty)
        #expect(
          outcome.error == "sf-exec: cannot run hostname in \(name): \(asker) has no clone named \(name).\n")
      }
    }
  }

  @Test("A VM that has the name of an earlier one does not have its clones")
  func heir() throws {
    try host.device("model")
    #expect(try host.sfctl("snapshot", "create", "model", "heirloom").status == 0)
    defer {
      _ = try? host.sfctl("vm", "destroy", "model")
      _ = try? host.sfctl("snapshot", "rm", "heirloom")
    }
    #expect(try host.sfctl("vm", "destroy", "model").status == 0)
    try host.device("model")
    let fork: ForkDocument = try host.document("clone", "heirloom", "-n", "1")
    defer {
      _ = try? host.sfctl("kill", fork.ticket)
      _ = try? host.sfctl("join", fork.ticket)
    }
    let outcome = try host.sfctl("exec", "model", "--", "sf-exec", fork.clones[0].name, "hostname")
    #expect(outcome.status == 255 && outcome.error.contains("has no clone named"), "\(outcome.text)")
  }

  @Test("Two generations: the grandmother and the mother reach a grandchild, its aunt does not")
  func generations() throws {
    try host.withFork(clones: 2) { first in
      let mother = first.clones[0].name
      try host.withFork(of: mother, clones: 1) { second in
        let child = second.clones[0].name
        for elder in ["dev", mother] {
          #expect(try host.inside(elder, "sf-exec", child, "hostname") == child + "\n")
        }
        #expect(try host.inside("dev", "sf-exec", mother, "sf-exec", child, "hostname") == child + "\n")
        let aunt = try host.sfctl("exec", first.clones[1].name, "--", "sf-exec", child, "hostname")
        #expect(aunt.status == 255 && aunt.text.isEmpty)
      }
    }
  }

  @Test("A fork while a command runs: it goes on for the parent, in the clone the process that asked is told")
  func forkMeanwhile() throws {
    try host.withFork(clones: 1) { fork in
      let name = fork.clones[0].name
      let wait = "echo begun; while [ ! -e /tmp/go ]; do sleep 0.1; done; cat; exit 5"
      let script =
        "echo input | sf-exec \(name) sh -c '\(wait)' 2>/tmp/said; echo $? >/tmp/status; cat /tmp/status"
      let command = try host.start(["exec", "dev", "--", "sh", "-c", script])
      #expect(eventually { command.outputSoFar.contains("begun") })
      try host.withFork(clones: 1) { second in
        let clone = second.clones[0].name
        #expect(eventually { (try? host.inside(clone, "cat", "/tmp/status")) == "255\n" })
        let said = try host.inside(clone, "cat", "/tmp/said")
        #expect(
          said
            == "sf-exec: cannot run sh in \(name): the VM was forked, and the command goes on in the parent\n"
        )
      }
      #expect(try host.sfctl("exec", "dev", "--", "test", "-e", "/tmp/status").status == 1)
      try host.inside(name, "touch", "/tmp/go")
      #expect(try command.wait().text == "begun\ninput\n5\n")
    }
  }

  @Test("The end of the clone, or of the daemon, is the command's, with a reason")
  func ends() throws {
    try host.withFork(clones: 2) { fork in
      for (index, clone) in fork.clones.enumerated() {
        let command = try host.start(
          [
            "exec", "dev", "--", "sh", "-c",
            "sf-exec \(clone.name) sh -c 'echo begun; sleep 600' 2>/tmp/said; echo $? >/tmp/ended",
          ])
        #expect(eventually { command.outputSoFar.contains("begun") })
        if index == 0 {
          #expect(try host.sfctl("kill", clone.name).status == 0)
        } else {
          try host.killDaemon()
        }
        _ = try command.wait()
        #expect(eventually { (try? host.inside("dev", "cat", "/tmp/ended")) == "255\n" })
        #expect(
          try host.inside("dev", "cat", "/tmp/said").hasPrefix(
            "sf-exec: cannot run sh in \(clone.name): the "))
        try host.inside("dev", "rm", "/tmp/ended", "/tmp/said")
      }
      #expect(try host.inside("dev", "sf-exec", fork.clones[1].name, "echo", "again") == "again\n")
    }
  }

  @Test("The library: clones by name, a command in each, errors in words")
  func library() throws {
    let outcome = try host.sfctl("exec", "dev", "--", "sf-family", "3")
    // The test before may have left names that libvirt still holds.
    let names = outcome.lines.prefix(3).map { String($0.split(separator: " ").dropFirst().first ?? "") }
    #expect(Set(names).count == 3 && names.allSatisfy { $0.hasPrefix("dev.") })
    let lines = names.enumerated().map { "\($0 + 1) \($1) \($1) 7" }
    let ends = (1...3).map { "\($0) killed killed by sf_kill" }
    #expect(
      outcome.lines == lines + [
        "No such file or directory: dev has no clone named nobody.", "No such file or directory",
        "File name too long",
      ] + ends, "\(outcome.error)")
  }
}

/// The same where clones are on other hosts.
@Suite("Commands in clones on many hosts", .serialized, .ownLab(hosts: 3))
struct RunLabTests {
  private let host: TestHost

  init() throws {
    host = try #require(TestHost.here)
    try host.device()
  }

  @Test("A clone on each host: streams, status and signals")
  func everywhere() throws {
    try host.withFork(clones: 3) { fork in
      #expect(Set(fork.clones.map(\.host)) == ["h1", "h2", "h3"])
      for name in fork.clones.map(\.name) {
        let outcome = try host.sfctl(
          "exec", "dev", "--", "sf-exec", name, "sh", "-c", "cat; hostname; echo error >&2; exit 3",
          input: Data("input\n".utf8))
        #expect(outcome.text == "input\n\(name)\n" && outcome.error == "error\n" && outcome.status == 3)
      }
      let name = fork.clones[2].name
      let bytes = Data(repeating: 0x41, count: 2 << 20)
      #expect(try host.sfctl("exec", "dev", "--", "sf-exec", name, "cat", input: bytes).output == bytes)
      let script = "trap 'echo term; exit 3' TERM; echo ready; while :; do sleep 0.1; done"
      let command = try host.start(["exec", "dev", "--", "sf-exec", name, "sh", "-c", script])
      #expect(eventually { command.outputSoFar.contains("ready") })
      command.signal(SIGTERM)
      #expect(try command.wait().status == 3)

      let stubborn = "trap '' HUP TERM; touch /tmp/runs; while :; do sleep 1; done"
      let hung = try host.start(["exec", "dev", "--", "sf-exec", name, "sh", "-c", stubborn])
      func runs() throws -> Bool {
        try host.sfctl("exec", name, "--", "sh", "-c", "ps | grep -q '[t]mp/runs'").status == 0
      }
      #expect(try eventually { try runs() })
      try host.inside("dev", "killall", "-9", "sf-exec")
      #expect(try hung.wait().status == 128 + SIGKILL)
      #expect(try eventually { try !runs() })

      // The operator's own, when sfctl is killed: hung up on.
      let own = try host.start(["exec", name, "--", "sh", "-c", "touch /tmp/runs; while :; do sleep 1; done"])
      #expect(try eventually { try runs() })
      own.signal(SIGKILL)
      #expect(try eventually { try !runs() })
    }
  }

  @Test("A grandchild on a third host, through its mother's; another VM of that host is refused")
  func generations() throws {
    try host.withFork(clones: 3) { fork in
      let mother = try #require(fork.clones.first { $0.host == "h2" }?.name)
      let forked = try host.on("h2", "fork", mother, "-n", "1", "--host", "h3", "--json")
      #expect(forked.status == 0, "\(forked.error)")
      let child = mother + ".1"
      #expect(try host.vm(child)?.host == "h3")
      #expect(try host.inside("dev", "sf-exec", child, "hostname") == child + "\n")
      #expect(try host.inside(mother, "sf-exec", child, "hostname") == child + "\n")
      let aunt = try #require(fork.clones.first { $0.host == "h3" }?.name)
      let refused = try host.sfctl("exec", aunt, "--", "sf-exec", child, "hostname")
      #expect(refused.status == 255 && refused.error.contains("\(aunt) has no clone named \(child)."))
      let unknown = try host.sfctl("exec", "dev", "--", "sf-exec", mother + ".2", "hostname")
      #expect(unknown.status == 255 && unknown.error.contains("has no clone named"), "\(unknown.error)")
      let ticket = try #require(try host.vm(child)?.ticket)
      _ = try host.on("h2", "kill", ticket)
      _ = try host.on("h2", "join", ticket)
    }
  }

  @Test("sf_clone_name waits for clones on other hosts, and commands run in them")
  func library() throws {
    let lines = try host.lines(inside: "dev", "sf-family 3")
    #expect(lines.prefix(3) == ["1 dev.1 dev.1 7", "2 dev.2 dev.2 7", "3 dev.3 dev.3 7"])
    #expect(lines.count == 9)
  }
}
