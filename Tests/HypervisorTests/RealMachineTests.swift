import Glibc
import Hypervisor
import LinuxSystem
import Testing

/// Real QEMUs under a real libvirt, with RAM copied by the test where memtap would map a snapshot.
@Suite(.serialized, .timeLimit(.minutes(2))) struct RealMachineTests {
  @Test func aMachineComesAndGoes() async throws {
    try await Lab.run { lab in
      let status = try lab.hypervisor.start(lab.spec("transient", .parent))
      #expect(status.state == .running && status.role == .parent)
      #expect(kill(status.pid, 0) == 0)
      #expect(access(lab.agentSocketPath("transient"), F_OK) == 0)
      let listed = try lab.hypervisor.machines()
      #expect(
        listed.map(\.name) == ["transient"] && listed[0].uuid == status.uuid && listed[0].pid == status.pid)

      let again = #expect(throws: HypervisorError.self) {
        try lab.hypervisor.start(lab.spec("transient", .parent))
      }
      #expect(again?.code == .nameTaken)
      try lab.hypervisor.destroy("transient")
      #expect(kill(status.pid, 0) == -1)
      #expect(try lab.waitForEnd(of: "transient") == .destroyed)
      try lab.hypervisor.destroy("transient")
      let missing = #expect(throws: HypervisorError.self) { try lab.hypervisor.requestShutdown("transient") }
      #expect(missing?.code == .notFound)
    }
  }

  @Test func aFrozenMachineStandsStillAndRunsOn() async throws {
    try await Lab.run { lab in
      _ = try lab.hypervisor.start(lab.spec("dev", .parent))
      _ = try lab.waitForOutput(of: "dev")
      for _ in 0..<3 {
        let state = try AnonymousFile.create(name: "state")
        let times = try lab.hypervisor.freeze("dev", deviceState: state.raw) {
          let before = try lab.printed(by: "dev")
          usleep(100_000)
          #expect(try lab.printed(by: "dev") == before)
        }
        #expect(times.pauseMicroseconds >= 100_000 && times.pauseMicroseconds <= times.totalMicroseconds)
        #expect((100_000..<1_000_000).contains(try state.size()), "device state without RAM")
        #expect(try lab.hypervisor.machines().map(\.state) == [.running])
        let output = try lab.waitForOutput(of: "dev")
        #expect(output == TinyGuest.letters(from: 0, count: output.utf8.count))
      }
    }
  }

  @Test func aSlotGoesOnWhereItsParentWasFrozen() async throws {
    try await Lab.run { lab in
      _ = try lab.hypervisor.start(lab.spec("dev", .parent))
      for name in ["dev.1", "dev.2"] {
        #expect(try lab.hypervisor.start(lab.spec(name, .slot)).state == .paused)
      }
      _ = try lab.waitForOutput(of: "dev")
      let state = try AnonymousFile.create(name: "state")
      nonisolated(unsafe) var printed = 0
      _ = try lab.hypervisor.freeze("dev", deviceState: state.raw) {
        for name in ["dev.1", "dev.2"] { try lab.copyRAM(from: "dev", to: name) }
        printed = try lab.printed(by: "dev").utf8.count
      }
      try systemCall("lseek") { lseek(state.raw, 0, SEEK_SET) }
      for name in ["dev.1", "dev.2"] {
        #expect(try lab.hypervisor.activate(name, deviceState: state.raw).totalMicroseconds > 0)
        let output = try lab.waitForOutput(of: name, more: 20)
        #expect(output == TinyGuest.letters(from: printed, count: output.utf8.count))
      }
      let output = try lab.waitForOutput(of: "dev")
      #expect(output == TinyGuest.letters(from: 0, count: output.utf8.count))
      #expect(try lab.hypervisor.machines().allSatisfy { $0.state == .running })

      // A clone is frozen like any other machine.
      let second = try AnonymousFile.create(name: "second")
      _ = try lab.hypervisor.freeze("dev.1", deviceState: second.raw) {}
      _ = try lab.waitForOutput(of: "dev.1")
    }
  }

  @Test func anErrorWhileStoppedLeavesTheMachineRunning() async throws {
    try await Lab.run { lab in
      _ = try lab.hypervisor.start(lab.spec("dev", .parent))
      let state = try AnonymousFile.create(name: "state")
      #expect(throws: LabError.self) {
        try lab.hypervisor.freeze("dev", deviceState: state.raw) { throw LabError(text: "no room") }
      }
      _ = try lab.waitForOutput(of: "dev")
      #expect(try lab.hypervisor.machines().map(\.state) == [.running])
      let second = try AnonymousFile.create(name: "second")
      _ = try lab.hypervisor.freeze("dev", deviceState: second.raw) {}
    }
  }

  @Test func aDeviceStateThatCannotBeWrittenLeavesTheMachineRunning() async throws {
    try await Lab.run { lab in
      _ = try lab.hypervisor.start(lab.spec("dev", .parent))
      let full = try OwnedDescriptor.open("/dev/full", O_WRONLY)
      let error = #expect(throws: HypervisorError.self) {
        try lab.hypervisor.freeze("dev", deviceState: full.raw) { Issue.record("stopped without a state") }
      }
      #expect(error?.code == .failed)
      _ = try lab.waitForOutput(of: "dev")
      #expect(try lab.hypervisor.machines().map(\.state) == [.running])
    }
  }

  @Test func aQEMUThatIsKilledInMidFreezeIsAnErrorAndAnEnd() async throws {
    try await Lab.run { lab in
      let pid = try lab.hypervisor.start(lab.spec("killed", .parent)).pid
      let state = try AnonymousFile.create(name: "state")
      #expect(throws: HypervisorError.self) {
        try lab.hypervisor.freeze("killed", deviceState: state.raw) { kill(pid, SIGKILL) }
      }
      #expect([.failed, .crashed].contains(try lab.waitForEnd(of: "killed")))
      try lab.hypervisor.destroy("killed")
    }
  }

  @Test func aDamagedDeviceStateIsRefusedInQEMUsWords() async throws {
    try await Lab.run { lab in
      _ = try lab.hypervisor.start(lab.spec("dev.1", .slot))
      let garbage = try AnonymousFile.create(name: "garbage", holding: [UInt8](repeating: 0x5A, count: 4096))
      let error = #expect(throws: HypervisorError.self) {
        try lab.hypervisor.activate("dev.1", deviceState: garbage.raw)
      }
      #expect(error?.code == .incompatible)
      #expect(error?.cause.contains("Not a migration stream") == true, "\(error?.cause ?? "")")
      try lab.hypervisor.destroy("dev.1")
      #expect(try lab.hypervisor.machines().isEmpty)
    }
  }

  @Test func aGuestThatPowersOffHasShutDown() async throws {
    try await Lab.run { lab in
      _ = try lab.hypervisor.start(lab.spec("ending", .parent))
      _ = try lab.waitForOutput(of: "ending")
      try TinyGuest.powerOff(ramPath: lab.ramPath("ending"))
      #expect(try lab.waitForEnd(of: "ending") == .shutdown)
      #expect(try lab.hypervisor.machines().isEmpty)
      try lab.hypervisor.destroy("ending")
    }
  }

  @Test func aLimitedGuestGetsItsShareOfAProcessor() async throws {
    try await Lab.run { lab in
      let pid = try lab.hypervisor.start(lab.spec("dev", .parent)).pid
      _ = try lab.waitForOutput(of: "dev", more: 1)
      // 1 % is less than the kernel's least quota of the usual period, and a limit can be changed.
      for limit in [1, 20] {
        try lab.hypervisor.limitProcessors(of: "dev", percent: limit)
        let before = try processorTicks(of: pid)
        usleep(2_000_000)
        let percent = try (processorTicks(of: pid) - before) / 2  // ticks are hundredths of a second
        #expect((0...limit + 10).contains(percent), "\(percent) % of a processor for a limit of \(limit) %")
      }
      _ = try lab.waitForOutput(of: "dev", more: 1)
      let missing = #expect(throws: HypervisorError.self) {
        try lab.hypervisor.limitProcessors(of: "nobody", percent: 20)
      }
      #expect(missing?.code == .notFound)
    }
  }

  /// User and system time, in hundredths of a second.
  private func processorTicks(of pid: pid_t) throws -> Int {
    var bytes = [UInt8](repeating: 0, count: 1024)
    let file = try OwnedDescriptor.open("/proc/\(pid)/stat", O_RDONLY)
    let count = try bytes.withUnsafeMutableBytes { try file.read(into: $0) }
    let fields = String(decoding: bytes.prefix(count), as: UTF8.self).split(separator: ")").last!.split(
      separator: " ")
    return Int(fields[11])! + Int(fields[12])!
  }
}
