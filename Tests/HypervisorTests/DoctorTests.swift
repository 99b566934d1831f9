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
}
