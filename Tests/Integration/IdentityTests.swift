import Foundation
import Support
import Testing

/// A clone is somebody of its own before its program goes on.
@Suite("Identity of clones", .serialized, .ownHost)
struct IdentityTests {
  private let host: TestHost

  init() throws {
    host = try #require(TestHost.here)
    try host.device()
  }

  @Test("Right after sf_clone: vmid, hostname, machine-id, clock and random numbers of its own")
  func afterClone() throws {
    let before = Date().timeIntervalSince1970
    let lines = try host.lines(inside: "dev", "sf-identity 3")
    let after = Date().timeIntervalSince1970
    let all = lines.map(Self.fields)
    try #require(all.count == 4)
    #expect(all.map { $0["vmid"] } == ["0", "1", "2", "3"])
    #expect(all.dropFirst().map { $0["hostname"] } == ["dev.1", "dev.2", "dev.3"])
    #expect(Set(all.map { $0["machine"] }).count == 4)
    #expect(Set(all.map { $0["random"] }).count == 4)
    for one in all {
      let time = try #require(one["time"].flatMap(Double.init))
      #expect(time > before - 2 && time < after + 2)
    }
    // By boot ID programs tell whether they share a machine, and its memory.
    #expect(Set(all.map { $0["boot"] }).count == 4)
  }

  /// The fields of a line "… name=value name=value".
  private static func fields(_ line: String) -> [String: String] {
    let pairs = line.split(separator: " ").compactMap { word -> (String, String)? in
      let parts = word.split(separator: "=")
      return parts.count == 2 ? (String(parts[0]), String(parts[1])) : nil
    }
    return Dictionary(pairs) { $1 }
  }

  @Test("Operator's clones are told apart by name and machine-id, and their kernels reseeded")
  func operatorsClones() throws {
    try host.withFork(clones: 2) { fork in
      #expect(fork.clones.map(\.name) == ["dev.\(fork.clones[0].vmid)", "dev.\(fork.clones[1].vmid)"])
      var machineIDs: Set = [try host.inside("dev", "cat", "/etc/machine-id")]
      for clone in fork.clones {
        #expect(try host.inside(clone.name, "hostname") == clone.name + "\n")
        machineIDs.insert(try host.inside(clone.name, "cat", "/etc/machine-id"))
        #expect(try host.inside(clone.name, "dmesg").contains("crng reseeded due to virtual machine fork"))
      }
      #expect(machineIDs.count == 3)
      #expect(!(try host.inside("dev", "dmesg")).contains("crng reseeded due to virtual machine fork"))
    }
  }

  @Test("Two processes that draw at the same moment in sibling clones draw differently")
  func randomNumbers() throws {
    try host.withFork(clones: 3) { fork in
      let draw = ["head", "-c", "32", "/dev/urandom"]
      let commands = try (fork.clones.map(\.name) + ["dev"]).map {
        try host.start(["exec", $0, "--"] + draw)
      }
      let drawn = try commands.map { try $0.wait().output }
      #expect(drawn.allSatisfy { $0.count == 32 })
      #expect(Set(drawn).count == 4)
    }
  }

  @Test("A clone of a fork point of long ago has today's clock")
  func clockOfAnOldSnapshot() throws {
    #expect(try host.sfctl("snapshot", "create", "dev", "old").status == 0)
    defer { _ = try? host.sfctl("snapshot", "rm", "old") }
    sleep(4)
    let fork: ForkDocument = try host.document("clone", "old", "-n", "1")
    defer {
      _ = try? host.sfctl("kill", fork.ticket)
      _ = try? host.sfctl("join", fork.ticket)
    }
    let told = try host.inside(try #require(fork.clones.first).name, "date", "+%s")
    let clock = try #require(Double(told.trimmingCharacters(in: .newlines)))
    #expect(abs(clock - Date().timeIntervalSince1970) < 2)
  }

  @Test("Programs in /etc/snowflock/clone.d have run when the clone is ready")
  func hooks() throws {
    let hook = "/etc/snowflock/clone.d/10-mark"
    try host.inside(
      "dev", "sh", "-c", "printf '#!/bin/sh\\nhostname >/tmp/marked\\n' >\(hook); chmod +x \(hook)")
    defer { _ = try? host.inside("dev", "rm", hook) }
    try host.withFork(clones: 1) { fork in
      let clone = try #require(fork.clones.first).name
      #expect(try host.inside(clone, "cat", "/tmp/marked") == clone + "\n")
    }
    #expect(try host.sfctl("exec", "dev", "--", "test", "-e", "/tmp/marked").status == 1)
  }

  @Test("Clones whose kernel does not notice the fork are refused, and the parent runs on")
  func notReseeded() throws {
    let image = try host.image(
      "no-vmgenid", like: "mini-tests",
      withParameter: "initcall_blacklist=vmgenid_driver_init,vmgenid_plaform_driver_init")
    try host.device("deaf", image: image)
    defer { _ = try? host.sfctl("vm", "destroy", "deaf") }
    let program = try host.sfctl("exec", "deaf", "--", "sf-wait", "2")
    let ends = program.lines.filter { $0.first?.isNumber == true }
    #expect(ends.count == 2)
    for (vmid, line) in zip(1..., ends) {
      #expect(line.hasPrefix("\(vmid) lost ") && line.contains("VM generation ID"), "\(line)")
    }
    #expect(try host.inside("deaf", "echo", "here") == "here\n")
  }
}
