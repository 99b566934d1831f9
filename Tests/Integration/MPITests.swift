import Foundation
import Support
import Testing

/// Debian's MPICH and its launcher, unmodified. The image is mpi-tests.
@Suite("MPI over clones", .serialized, .ownHost)
struct MPITests {
  private let host: TestHost
  private static let pi = "pi is approximately 3.14159265"
  init() throws {
    host = try #require(TestHost.here)
    try host.device("mpi", image: "mpi-tests")
  }

  @Test("cpi and mpi-latency with all ranks in one guest: what a run over clones is compared with")
  func local() throws {
    let lines = try host.lines(inside: "mpi", "mpiexec.hydra -n 3 cpi")
    #expect(Set((0..<3).map { "Process \($0) of 3 is on mpi" }).isSubset(of: lines))
    #expect(lines.contains { $0.hasPrefix(Self.pi) })
    let latency = try host.lines(inside: "mpi", "mpiexec.hydra -n 2 mpi-latency 3")
    #expect(latency.count == 2 && latency.allSatisfy { $0.hasPrefix("1 mpi right ") }, "\(latency)")
  }

  @Test("Hydra starts its proxies in clones by sf-exec: output, each clone's name, the rank's status")
  func hydra() throws {
    let script = try Data(
      contentsOf: URL(fileURLWithPath: ProjectFiles.root + "/Tests/Integration/guest/tunnel-rsh"))
    let copied = try host.sfctl(
      "exec", "mpi", "--", "sh", "-c", "cat >/tmp/tunnel-rsh; chmod +x /tmp/tunnel-rsh", input: script)
    try #require(copied.status == 0, "\(copied.error)")
    try host.withFork(of: "mpi", clones: 2) { fork in
      let names = fork.clones.map(\.name)
      let launch =
        "MPIEXEC_PORT_RANGE=5000:5000 mpiexec.hydra -launcher rsh -launcher-exec /tmp/tunnel-rsh -hosts "
        + names.joined(separator: ",")
      let outcome = try host.sfctl(
        "exec", "mpi", "--", "sh", "-c", launch + #" -n 4 sh -c 'echo $PMI_RANK $(hostname); exit 3'"#)
      #expect(
        outcome.lines.sorted() == (0..<4).map { "\($0) \(names[$0 / 2])" }
          || outcome.lines.sorted()
            == (0..<4).map { "\($0) \(names[$0 % 2])" },
        "\(outcome.text)\(outcome.error)")
      #expect(outcome.status == 3)
    }
  }

  @Test("A launcher that fails ends mpiexec, which else would wait for ever")
  func failedLauncher() throws {
    let launch = [
      "mpiexec.hydra", "-launcher", "rsh", "-launcher-exec", "/usr/bin/sf-rsh", "-hosts", "nobody",
    ]
    let outcome = try host.start(["exec", "mpi", "--"] + launch + ["-n", "1", "hostname"]).wait()
    #expect(outcome.status != 0 && outcome.text.isEmpty)
    #expect(outcome.error.contains("mpi has no clone named nobody."), "\(outcome.error)")
  }

  private func ranks(of program: String) throws -> Int {
    try host.vms().count { vm in
      try vm.role == "clone" && vm.state == "running"
        && host.sfctl("exec", vm.name, "--", "pidof", program).status == 0
    }
  }

  @Test("mpirun and sf-mpirun end their clones, whatever becomes of the program")
  func ends() throws {
    #expect(try host.sfctl("mpirun", "-n", "2", "mpi", "--", "/nonexistent").status != 0)
    #expect(try host.tickets().isEmpty)
    #expect(try host.sfctl("exec", "mpi", "--", "sf-mpirun", "-n", "2", "/nonexistent").status != 0)
    #expect(try host.tickets().isEmpty)
    for arguments in [["mpirun", "-n", "2", "mpi", "--"], ["exec", "mpi", "--", "sf-mpirun", "-n", "2"]] {
      let command = try host.start(arguments + ["sleep", "600"])
      // Hydra passes a signal on to ranks that run, and asks for a second one otherwise.
      let areThere = try eventually { try ranks(of: "sleep") == 2 }
      command.signal(SIGINT)
      let outcome = try command.wait()
      #expect(areThere && outcome.status != 0, "\(outcome)\n\(host.daemonLog.suffix(2000))")
      #expect(try host.tickets().isEmpty && host.vms().map(\.name) == ["mpi"])
    }
    #expect(try host.sfctl("mpirun", "-n", "1", "ghost", "--", "cpi").status == 3)
  }

  @Test("cpi and a latency check over clones, from outside and from inside: the local result, a rank in each")
  func overClones() throws {
    let runs = [["mpirun", "-n", "3", "mpi", "--"], ["exec", "mpi", "--", "sf-mpirun", "-n", "3"]]
    for arguments in runs {
      let outcome = try host.start(arguments + ["cpi"]).wait()
      #expect(outcome.status == 0, "\(outcome.error)")
      #expect(
        Set((0..<3).map { "Process \($0) of 3 is on mpi.\($0 + 1)" }).isSubset(of: outcome.lines),
        "\(outcome.text)\(outcome.error)")
      #expect(outcome.lines.contains { $0.hasPrefix(Self.pi) })
      let latency = try host.start(arguments + ["mpi-latency", "10"]).wait()
      #expect(
        latency.lines.count == 4 && latency.lines.allSatisfy { $0.contains(" right ") }, "\(latency.text)")
    }
  }
}
