import Foundation
import Testing

/// sfctl beside an `sfd` of ours: a shell script.
@Suite struct AutoStartTests {
  private func sfctl(beside daemon: String) throws -> SfctlProcess {
    let directory = "/tmp/sfctl-start-" + UUID().uuidString.prefix(8)
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    try FileManager.default.copyItem(
      atPath: URL(fileURLWithPath: SfctlProcess.built).standardizedFileURL.resolvingSymlinksInPath().path,
      toPath: directory + "/sfctl")
    _ = FileManager.default.createFile(
      atPath: directory + "/sfd", contents: Data("#!/bin/bash\n\(daemon)\n".utf8),
      attributes: [.posixPermissions: 0o755])
    return try SfctlProcess(program: directory + "/sfctl")
  }

  private func remove(_ sfctl: SfctlProcess) {
    try? FileManager.default.removeItem(atPath: (sfctl.program as NSString).deletingLastPathComponent)
  }

  @Test func saysWhyTheDaemonDied() async throws {
    let sfctl = try sfctl(
      beside: "echo starting; echo 'sfd: cannot open /dev/userfaultfd: no such file.' >&2; exit 1")
    defer { remove(sfctl) }
    let outcome = try await sfctl("ps", "--json")
    #expect(outcome.status == 1)
    #expect(outcome.output == "")
    #expect(
      outcome.error == "sfctl: cannot start the daemon: cannot open /dev/userfaultfd: no such file. "
        + "Run “sfctl doctor”; the log is \(sfctl.state)/sfd.log.\n")
  }

  /// The script only says that it was started, and where it stands; the socket is then opened by the test.
  @Test func twoAtOnceStartOneDaemon() async throws {
    let sfctl = try sfctl(
      beside: """
        echo "$$ $(ps -o sid= -p $$) $(readlink /proc/$$/fd/0) $(ls /proc/$$/fd | tr '\\n' ',')" >>"$SNOWFORK_RUN/started"
        for i in $(seq 2000); do [ -e "$SNOWFORK_RUN/end" ] && exit; sleep 0.01; done
        """)
    defer { remove(sfctl) }
    let first = Task { try await sfctl.shell("exec 9</etc/passwd; exec \"$SFCTL\" ps --json") }
    let second = Task { try await sfctl("ps", "--json") }
    let marker = sfctl.run + "/started"
    let deadline = ContinuousClock.now + .seconds(20)
    while !FileManager.default.fileExists(atPath: marker), ContinuousClock.now < deadline {
      try await Task.sleep(for: .milliseconds(10))
    }
    let outcomes = try await FakeDaemon.serving(sfctl.socket) {
      try await [first.value, second.value]
    }
    #expect(outcomes.allSatisfy { $0.status == 0 && $0.output.hasPrefix(#"{"vms":["#) && $0.error == "" })

    let started = try String(contentsOfFile: marker, encoding: .utf8).split(separator: "\n")
    #expect(started.count == 1)
    let words = started[0].split(separator: " ").map(String.init)
    #expect(words[0] == words[1], "the daemon leads a session of its own")
    #expect(words[2] == "/dev/null")
    #expect(
      !words[3].split(separator: ",").contains("9"), "a descriptor of the caller was inherited: \(words[3])")
    _ = FileManager.default.createFile(atPath: sfctl.run + "/end", contents: nil)
  }

  @Test func stopReturnsWhenTheDaemonHasEnded() async throws {
    let sfctl = try SfctlProcess()
    let stopped = try await FakeDaemon.serving(sfctl.socket) { try await sfctl("daemon", "stop") }
    #expect(stopped.status == 0 && stopped.error == "")
    let again = try await sfctl("daemon", "stop")
    #expect(again.status == 0 && again.error == "", "none runs, and none is started to be told to end")
  }
}
