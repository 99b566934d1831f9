import ArgumentParser
import CloneNetwork
import Hypervisor
import LinuxSystem
import Wire

struct DoctorCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "doctor",
    abstract: "Say what this machine lacks, what that costs, and what to do. Needs no daemon.",
    discussion: "EXAMPLE: sfctl doctor --json\n\nExit status 1 where something is missing that a fork needs.")

  @OptionGroup var output: OutputOptions

  func run() async throws {
    let findings = try await ProgressLine.during("examining this machine") { _ in
      // The probes read files and may boot a VM for a moment: they block.
      try await WorkerThreads(name: "doctor", limit: 1).run {
        Doctor(memoryDirectory: RuntimePaths.fromEnvironment().run + "/mem").examine() + [Self.filter()]
          + Self.installation()
      }
    }
    let document = DoctorDocument(findings: findings)
    try output.show(document, text: document.text)
    if !document.ready { throw ExitCode(ExitStatus.failed.rawValue) }
  }

  /// Opened and read as sfd does, and not changed.
  private static func filter() -> Finding {
    do throws(NetworkError) {
      _ = try HostNetwork()
      return Finding(id: "nf-tables", status: .ok, detail: "The kernel has nf_tables, for filters of VMs.")
    } catch {
      return Finding(
        id: "nf-tables", status: .warning, detail: "VMs can have no network: \(error.cause).",
        remedy: error.remedy.isEmpty ? "modprobe nf_tables, or start VMs with --no-network." : error.remedy)
    }
  }

  /// What belongs to snowfork itself.
  private static func installation() -> [Finding] {
    [
      finding("daemon", "The daemon's program", ProgramFiles.daemon, remedy: "Run make build."),
      finding(
        "image-recipes", "The program that builds images", ProgramFiles.imageBuilder,
        remedy: "Install snowfork whole: make install."),
    ]
  }

  private static func finding(
    _ id: String, _ what: String, _ find: () throws -> String, remedy: String
  ) -> Finding {
    guard let path = try? find() else {
      return Finding(id: id, status: .missing, detail: "\(what) was not found.", remedy: remedy)
    }
    return Finding(id: id, status: .ok, detail: "\(what) is \(path).")
  }
}

private struct DoctorDocument: Encodable {
  var ready: Bool
  var findings: [Finding]

  init(findings: [Finding]) {
    self.findings = findings
    ready = findings.allSatisfy { $0.status != .missing }
  }

  var text: String {
    let lines = findings.flatMap { finding in
      let mark =
        switch finding.status {
        case .ok: "ok      "
        case .warning: "warning "
        case .missing: "MISSING "
        }
      let remedy = finding.remedy.isEmpty ? [] : ["         → \(finding.remedy)"]
      return ["\(mark) \(finding.detail)"] + remedy
    }
    return (lines + [ready ? "This machine can fork VMs." : "This machine can not fork VMs yet."])
      .joined(separator: "\n")
  }
}
