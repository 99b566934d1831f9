import Hypervisor
import Testing

@Suite struct DoctorTests {
  @Test func everyFaultHasARemedyAndEveryFindingAnIdentifier() {
    let findings = Doctor(memoryDirectory: "/nonexistent").examine()
    #expect(Set(findings.map(\.id)).count == findings.count)
    for finding in findings {
      #expect(finding.detail.hasSuffix("."), "\(finding)")
      #expect((finding.status == .ok) == finding.remedy.isEmpty, "\(finding)")
      #expect(!finding.id.contains(" "))
    }
  }

  @Test func disksAndNetworkAreLookedAt() {
    let findings = Doctor(memoryDirectory: "/nonexistent").examine()
    for id in ["qemu-storage-daemon", "qemu-img", "nbdkit", "tun"] {
      #expect(findings.contains { $0.id == id && $0.status == .ok }, "\(id): tools/setup brings it")
    }
  }

  @Test func missingProgramIsNamedWithItsPackage() {
    let finding = Doctor.program(
      "nbdkit", at: "/nonexistent/nbdkit", package: "nbdkit", without: "nothing is served")
    #expect(finding.status == .warning)
    #expect(finding.detail == "/nonexistent/nbdkit is missing, or does not start: nothing is served.")
    #expect(finding.remedy == "apt-get install nbdkit")
  }

  @Test func missingTunDevice() {
    let finding = Doctor.tun("/nonexistent/tun")
    #expect(finding.status == .warning && finding.detail.contains("/nonexistent/tun"), "\(finding)")
    #expect(finding.remedy == "modprobe tun, or start VMs with --no-network.")
  }
}
