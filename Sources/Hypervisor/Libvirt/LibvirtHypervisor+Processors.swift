import Foundation

/// How fast virtual CPUs run.
extension LibvirtHypervisor {
  public func limitProcessors(of name: String, percent: Int) throws(HypervisorError) {
    let operation = "limiting the processor time"
    let domain = try Domain(name, of: connection, operation: operation)
    let answer = try domain.command(#"{"execute":"query-cpus-fast"}"#, operation: operation)
    guard let threads = Self.threads(in: answer), !threads.isEmpty else {
      throw HypervisorError(
        .failed, operation: operation, machine: name, cause: "QEMU does not say which threads its CPUs are")
    }
    try cpuLimit(of: name).apply(percent: percent, pid: processID(of: name), threads: threads)
  }

  func cpuLimit(of name: String) -> CPULimit { CPULimit(machine: name, owner: runDirectory) }

  /// Removes what limits of machines that were killed, with whoever started them below `root`, have left.
  public static func removeLimits(embeddedRoot root: String) {
    EmbeddedRoot(uri: embeddedURI(root: root)).map { CPULimit.removeLeftovers(owner: "\($0.path)/run/qemu") }
  }

  /// The threads of QEMU's answer, in the order of their CPUs; nil if it is another answer.
  private static func threads(in answer: String) -> [pid_t]? {
    struct Answer: Decodable {
      struct CPU: Decodable {
        var index: Int
        var thread: pid_t
        enum CodingKeys: String, CodingKey {
          case index = "cpu-index"
          case thread = "thread-id"
        }
      }
      var `return`: [CPU]
    }
    let cpus = try? JSONDecoder().decode(Answer.self, from: Data(answer.utf8)).return
    return cpus?.sorted { $0.index < $1.index }.map(\.thread)
  }
}
