import Foundation
import Testing

@Suite struct ImageTests {
  private func makeImage(_ sfctl: SfctlProcess, _ manifest: String) throws {
    let directory = sfctl.state + "/images/mini"
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    for (file, text) in [("image.json", manifest), ("vmlinuz", "1234567"), ("initrd", "123")] {
      try text.write(toFile: directory + "/" + file, atomically: true, encoding: .utf8)
    }
  }

  @Test func startPassesTheImageAndItsSizesOn() async throws {
    try await FakeDaemon.serving { sfctl in
      try makeImage(sfctl, #"{"name":"mini"}"#)
      let outcome = try await sfctl("vm", "start", "a", "--memory", "1G", "--vcpus", "2", "--json")
      #expect(outcome.error == "")
      #expect(outcome.output.contains(#""memory_bytes":1073741824"#))
      #expect(outcome.output.contains(#""vcpus":2"#))
      #expect(outcome.output.contains(#""image":"\#(sfctl.state)/images/mini""#))
      let byPath = try await sfctl(
        "vm", "start", "a", "--image", sfctl.state + "/images/../images/mini", "--json")
      #expect(byPath.output.contains(#""image":"\#(sfctl.state)/images/mini""#))
    }
  }

  @Test func startNamesAMissingImage() async throws {
    let sfctl = try SfctlProcess()
    let outcome = try await sfctl("vm", "start", "a", "--image", "debian")
    #expect(outcome.status == 1)
    #expect(
      outcome.error
        == "sfctl: cannot use image debian: \(sfctl.state)/images/debian/image.json is not there. "
        + "Run “sfctl image build debian”.\n")
  }

  @Test func listShowsWhatIsBuilt() async throws {
    let sfctl = try SfctlProcess()
    #expect(try await sfctl("image", "ls", "--json").output == "{\"images\":[]}\n")
    try makeImage(sfctl, #"{"name":"mini","kernel":"6.1.0","minimum_memory_bytes":67108864,"packages":[]}"#)
    #expect(
      try await sfctl("image", "ls", "--json").output
        == #"{"images":[{"directory":"\#(sfctl.state)/images/mini","kernel":"6.1.0","#
        + #""minimum_memory_bytes":67108864,"name":"mini","size_bytes":10}]}"# + "\n")
  }

  @Test func brokenManifestIsAFailure() async throws {
    let sfctl = try SfctlProcess()
    try makeImage(sfctl, "{")
    let outcome = try await sfctl("image", "ls", "--json")
    #expect(outcome.status == 1)
    #expect(outcome.output == "")
    #expect(outcome.error.hasPrefix("sfctl: cannot read \(sfctl.state)/images/mini/image.json: "))
  }
}
