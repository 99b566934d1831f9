import Hypervisor
import Testing

@Suite struct AcceleratorProbeTests {
  /// The start of a processor's entry, as Linux writes it.
  private func cpuinfo(flags: String) -> String {
    "processor\t: 0\nmodel name\t: A processor\nflags\t\t: \(flags)\nvmx flags\t: vnmi preemption_timer\n"
  }

  @Test func withoutTheFlagsNoGuestIsTried() {
    let probe = AcceleratorProbe(cpuinfo: { cpuinfo(flags: "fpu sse2 svm_lock nx") }) { _ in
      Issue.record("a probe guest ran on a processor that cannot virtualize")
      return nil
    }
    #expect(probe.choose().accelerator == .tcg)
    #expect(probe.choose().reason == "TCG: /proc/cpuinfo shows neither vmx nor svm")
  }

  @Test(arguments: ["vmx", "svm"]) func theFlagIsNotEnough(flag: String) {
    let probe = AcceleratorProbe(cpuinfo: { cpuinfo(flags: "fpu \(flag) nx") }) { _ in
      "QEMU ended with status 1"
    }
    #expect(probe.choose().accelerator == .tcg)
    #expect(probe.choose().reason.hasSuffix("failed: QEMU ended with status 1"))
  }

  @Test func aGuestThatRanDecidesForKVM() {
    let probe = AcceleratorProbe(cpuinfo: { cpuinfo(flags: "vmx") }) { accelerator in
      #expect(accelerator == .kvm)
      return nil
    }
    #expect(probe.choose().accelerator == .kvm)
  }

  @Test func unreadableCPUInfoMeansTCG() {
    #expect(AcceleratorProbe(cpuinfo: { "" }, runGuest: { _ in nil }).choose().accelerator == .tcg)
  }

  @Test func theProbeGuestReallyRuns() {
    #expect(ProbeGuest.run(under: .tcg) == nil)
  }
}
