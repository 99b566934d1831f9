import Testing

/// What the user sees, and the exit status, where it does not go well. Nothing is on stdout then.
@Suite struct FailureTests {
  private func expect(_ arguments: String, _ status: Int32, _ error: String) async throws {
    try await FakeDaemon.serving { sfctl in
      let outcome = try await sfctl.shell("\"$SFCTL\" \(arguments)")
      #expect(outcome.error == "sfctl: " + error + "\n")
      #expect(outcome.output == "")
      #expect(outcome.status == status)
    }
  }

  @Test func unknownVM() async throws {
    try await expect(
      "fork nobody -n 1 --json", 3, "cannot find nobody: no VM has this name. Try “sfctl ps”.")
  }

  @Test func unknownStatistics() async throws {
    try await expect(
      "stats unknown --json", 3,
      "no figures of unknown: no VM, ticket or snapshot is so named. Try “sfctl ps”.")
  }

  @Test func noMemory() async throws {
    try await expect("fork dev -n 9", 4, "cannot fork dev: no memory for 9 clones. Ask for 8.")
  }

  @Test func joinTimesOut() async throws {
    try await expect("join t1 --timeout 0.5", 1, "waited 0.5 s for t1: 2 clones run on. Wait longer.")
  }

  /// The figures of the others are still printed.
  @Test func aLostCloneIsAFailure() async throws {
    try await FakeDaemon.serving { sfctl in
      let outcome = try await sfctl("fork", "dying", "-n", "1", "--json")
      #expect(outcome.status == 1)
      #expect(outcome.output.contains(#""state":"lost""#))
      #expect(outcome.error.hasPrefix("sfctl: 1 of 1 clones were lost: dev.1: its QEMU ended. "))
    }
  }

  @Test(arguments: [
    ("", "fork dev", "missing expected argument '-n <n>'"),
    ("", "fork dev -n 0", "-n takes 1 or more"),
    ("", "fork dev -n many", "the value 'many' is invalid for '-n <n>'"),
    ("", "exec dev", "a command is missing after “--”"),
    ("", "exec dev --env =x -- true", "--env takes NAME=VALUE, not “=x”"),
    ("vm", "start a --memory 5", "the value '5' is invalid for '--memory <memory>'"),
    ("vm", "start a --memory 99999999999G", "the value '99999999999G' is invalid for '--memory <memory>'"),
    ("vm", "start a --vcpus 0", "--vcpus takes 1 to 255"),
    ("vm", "start a --cpu-limit 0", "--cpu-limit takes 1 to 100 percent"),
    ("vm", "start a --cpu-limit 101", "--cpu-limit takes 1 to 100 percent"),
    ("", "ps --jsn", "unknown option '--jsn'. Did you mean '--json'"),
    ("", "join t1 --timeout 0", "--timeout takes a number of seconds over 0"),
  ])
  func wrongCommandLine(group: String, arguments: String, why: String) async throws {
    let sfctl = try SfctlProcess()
    let command = [group, String(arguments.split(separator: " ")[0])].filter { !$0.isEmpty }.joined(
      separator: " ")
    let outcome = try await sfctl.shell("\"$SFCTL\" \(group) \(arguments)")
    #expect(outcome.status == 2)
    #expect(outcome.output == "")
    #expect(
      outcome.error == "sfctl: cannot read the command line: \(why). Try “sfctl \(command) --help”.\n")
  }

  @Test func helpAndVersionAreNoFailures() async throws {
    let sfctl = try SfctlProcess()
    for arguments in ["--help", "fork --help", "vm start --help", "--version"] {
      let outcome = try await sfctl.shell("\"$SFCTL\" \(arguments)")
      #expect(outcome.status == 0 && outcome.error == "", "\(arguments)")
      #expect(arguments == "--version" || outcome.output.contains("EXAMPLE: "), "\(arguments)")
    }
  }
}
