import Foundation
import Support
import Testing

/// snowflock.h and snowflock.py from programs in guests. The programs check for themselves: guest/sf-api.c, api.py.
@Suite("The API in a guest", .serialized, .ownHost)
struct APITests {
  private let host: TestHost

  init() throws { host = try #require(TestHost.here) }

  @Test("C: results, kill, time-out, checkpoint", arguments: ["results", "kill", "timeout", "checkpoint"])
  func inC(_ part: String) throws {
    try host.device()
    let outcome = try host.sfctl("exec", "dev", "--", "sf-api", part)
    #expect(outcome.text == "right\n" && outcome.status == 0, "\(outcome.text)\(outcome.error)")
    try removeCheckpoints()
  }

  /// A checkpoint is kept for as long as somebody may clone it: until it is removed.
  private func removeCheckpoints() throws {
    for kept in try host.snapshots() {
      #expect(try host.sfctl("snapshot", "rm", kept).status == 0)
    }
  }

  @Test("C: errors are negative numbers, and sf_exit in a parent is exit")
  func errorsInC() throws {
    try host.device()
    let outcome = try host.sfctl("exec", "dev", "--", "sf-api", "errors")
    #expect(outcome.text == "right\n" && outcome.status == 42, "\(outcome.text)\(outcome.error)")
  }

  @Test("C: a hierarchical ticket gives each virtual CPU of each clone a process with a number of its own")
  func hierarchical() throws {
    try host.device("two", vcpus: 2)
    defer { _ = try? host.sfctl("vm", "destroy", "two") }
    let lines = try host.lines(inside: "two", "sf-hierarchy 4")
    try #require(lines.count == 5, "\(lines)")
    #expect(lines[0] == "granted 4")
    let hosts = lines.dropFirst().map { $0.split(separator: " ").map(String.init) }
    for (vmid, words) in zip(1..., hosts) {
      #expect(words[0...2] == ["\(vmid)", "exited", "\(vmid * 10)"])
      #expect(words.contains("memory=right") && words.contains("cpus=1"), "\(words)")
    }
    // Two processes a machine, on different virtual CPUs.
    #expect(hosts[0][3] == hosts[1][3] && hosts[2][3] == hosts[3][3] && hosts[0][3] != hosts[2][3])
    #expect(hosts[0][5] != hosts[1][5] && hosts[2][5] != hosts[3][5])
  }

  @Test("Python: the same, smaller")
  func inPython() throws {
    try host.device("py", image: "debian", memory: "384M")
    defer { _ = try? host.sfctl("vm", "destroy", "py") }
    let script = try Data(
      contentsOf: URL(fileURLWithPath: ProjectFiles.root + "/Tests/Integration/guest/api.py"))
    let copied = try host.sfctl("exec", "py", "--", "sh", "-c", "cat >/root/api.py", input: script)
    try #require(copied.status == 0, "\(copied.error)")
    let outcome = try host.sfctl("exec", "py", "--", "python3", "/root/api.py")
    #expect(outcome.text == "right\n" && outcome.status == 0, "\(outcome.text)\(outcome.error)")
    try removeCheckpoints()
  }
}
