import Foundation
import Support
import Testing

/// `vm start --cpu-limit`: the virtual CPUs of a device are slow, nothing else is.
@Suite("Processor limits", .serialized, .ownHost)
struct CPULimitTests {
  private let host: TestHost

  init() throws { host = try #require(TestHost.here) }

  /// The threads of a VM's QEMU, and the cgroup that is ours of those that have one.
  private func threads(of pid: Int32) throws -> [(id: String, name: String, group: String?)] {
    try FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/task").map { thread in
      let directory = "/proc/\(pid)/task/\(thread)/"
      let name = try String(contentsOfFile: directory + "comm", encoding: .utf8)
      let groups = try String(contentsOfFile: directory + "cgroup", encoding: .utf8)
      let ours = groups.split(separator: "\n").first { $0.contains("/snowfork/") }
      return (
        thread, name.trimmingCharacters(in: .newlines), ours.map { String($0.split(separator: "/").last!) }
      )
    }
  }

  /// User and system time of a thread, in hundredths of a second.
  private func ticks(of pid: Int32, _ thread: String) throws -> Int {
    let text = try String(contentsOfFile: "/proc/\(pid)/task/\(thread)/stat", encoding: .utf8)
    let fields = text.split(separator: ")").last!.split(separator: " ")
    return Int(fields[11])! + Int(fields[12])!
  }

  @Test(
    "Each virtual CPU has its share, other threads are left alone, also after the daemon's death; clones are not slow"
  )
  func share() throws {
    try host.device("weak", vcpus: 2, options: ["--cpu-limit", "20"])
    #expect(try host.vm("weak")?.cpuLimitPercent == 20)
    try host.inside("weak", "sh", "-c", "(while :; do :; done) </dev/null >/dev/null 2>&1 &")
    try host.inside("weak", "sh", "-c", "(while :; do :; done) </dev/null >/dev/null 2>&1 &")
    for round in 1...2 {
      let pid = try #require(try host.vm("weak")).pid
      let threads = try threads(of: pid)
      let virtual = threads.filter { $0.name.hasPrefix("CPU ") }
      #expect(Set(virtual.map(\.group)) == ["vcpu0", "vcpu1"], "\(threads)")
      #expect(threads.allSatisfy { $0.name.hasPrefix("CPU ") || $0.group?.hasPrefix("vcpu") != true })
      let before = try virtual.map { try ticks(of: pid, $0.id) }
      let start = ContinuousClock.now
      sleep(4)
      let seconds = Double((ContinuousClock.now - start).components.seconds)
      for (thread, earlier) in zip(virtual, before) {
        // More than nothing, and far less than a processor, which an endless loop would take.
        let share = Double(try ticks(of: pid, thread.id) - earlier) / 100 / seconds
        #expect(0.02...0.35 ~= share, "\(thread.name) had \(share) of a processor")
      }
      if round == 1 {
        try host.killDaemon()
        #expect(try host.vm("weak")?.cpuLimitPercent == 20)
      }
    }
    try host.withFork(of: "weak", clones: 1) { fork in
      let clone = try #require(try host.vm(fork.clones[0].name))
      #expect(clone.cpuLimitPercent == 0)
      #expect(try threads(of: clone.pid).allSatisfy { $0.group?.hasPrefix("vcpu") != true })
    }
    #expect(try host.sfctl("vm", "destroy", "weak").status == 0)
    #expect(eventually { Self.groups(of: "weak").isEmpty }, "\(Self.groups(of: "weak"))")
  }

  private static func groups(of vm: String) -> [String] {
    ["/sys/fs/cgroup/cpu/snowfork", "/sys/fs/cgroup/cpu,cpuacct/snowfork", "/sys/fs/cgroup/snowfork"]
      .flatMap { (try? FileManager.default.contentsOfDirectory(atPath: $0)) ?? [] }
      .filter { $0.hasPrefix(vm + ".") }
  }

  @Test("What is no limit is refused, and the doctor knows whether limits work")
  func refused() throws {
    for wrong in ["0", "101", "-5", "x"] {
      let outcome = try host.sfctl("vm", "start", "weak", "--cpu-limit", wrong)
      #expect(outcome.status == 2, "\(outcome.error)")
    }
    struct Findings: Decodable {
      struct Finding: Decodable {
        var id: String
        var status: String
      }
      var findings: [Finding]
    }
    let doctor = try JSONDecoder().decode(Findings.self, from: try host.sfctl("doctor", "--json").output)
    #expect(doctor.findings.contains { $0.id == "cpu-limit" && $0.status == "ok" })
  }
}
