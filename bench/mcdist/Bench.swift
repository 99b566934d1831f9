import BenchSupport
import Foundation
import Glibc
import LinuxSystem

/// Runs the systems in turn, so that what else the machine does meets all of them, and takes their figures down.
final class Bench {
  private let directory: String
  private let imageBytes: Int
  private let runs: Int
  private let systems: [System]
  private var lines: [Line] = []
  private let encoder = JSONEncoder()

  struct Line: Encodable {
    let bench = "mcdist"
    var system: String
    let figure = "goodput_bytes_per_s"
    var receivers: Int
    var lossPercent: Int
    /// 0: none but the machine's.
    var linkMegabits: Int
    var imageBytes: Int
    var median: Double
    var min: Double
    var max: Double
    var samples: [Double]
    /// To the plain sender's median.
    var ratioToPlain: Double?
    /// Medians of what else the system tells.
    var details: [String: Double]
    let cpus = ProcessInfo.processInfo.activeProcessorCount
  }

  init(mebibytes: Int, runs: Int, systems: [System]) throws {
    directory = "/tmp/sfbm-\(getpid())"
    imageBytes = mebibytes << 20
    self.runs = runs
    self.systems = systems
    encoder.keyEncodingStrategy = .convertToSnakeCase
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    mkdir(directory, 0o755)
    try Tmpfs.mount(at: directory, bytesMax: 8 << 30)
    mkdir("\(directory)/kept", 0o755)
    // Random bytes: neither compression nor zero pages make them fewer.
    var bytes = [UInt64](repeating: 0, count: imageBytes / 8)
    var random = SystemRandomNumberGenerator()
    for index in bytes.indices { bytes[index] = random.next() }
    try bytes.withUnsafeBytes { try Data($0).write(to: URL(fileURLWithPath: image)) }
  }

  private var image: String { "\(directory)/image" }

  func close() {
    try? Tmpfs.unmount(directory)
    rmdir(directory)
  }

  func measure(receivers: Int, losses: [Int], megabits: Int) throws {
    let network = try Network(receivers: receivers)
    defer { network.remove() }
    try network.limit(megabits: megabits)
    for loss in losses {
      try network.lose(loss)
      var transfers: [String: [Transfer]] = [:]
      for run in 1...runs {
        for system in systems {
          let setting = System.Setting(
            network: network, image: image, imageBytes: imageBytes, directory: "\(directory)/kept",
            megabits: megabits, loss: loss)
          do {
            let transfer = try system.transfer(setting)
            try check(setting, system)
            transfers[system.name, default: []].append(transfer)
            say(
              "\(receivers) receivers, \(loss) % loss, run \(run): \(system.name) \(megabytes(transfer.goodput)) "
                + "\(transfer.details.sorted { $0.key < $1.key }.map { "\($0.key)=\(String(format: "%.4g", $0.value))" }.joined(separator: " "))"
            )
          } catch { say("\(receivers) receivers, \(loss) % loss, run \(run): \(system.name): \(error)") }
          try empty("\(directory)/kept")
        }
      }
      try record(transfers, receivers, loss, megabits)
    }
  }

  /// What receivers kept is the image.
  private func check(_ setting: System.Setting, _ system: System) throws {
    let original = try MappedFile(image).bytes
    defer { munmap(UnsafeMutableRawPointer(mutating: original.baseAddress!), original.count) }
    guard system.keeps else { return }
    for host in 1...setting.receivers {
      let copy = try MappedFile(setting.kept(host)).bytes
      defer { munmap(UnsafeMutableRawPointer(mutating: copy.baseAddress!), copy.count) }
      guard copy.count == original.count, memcmp(copy.baseAddress!, original.baseAddress!, copy.count) == 0
      else {
        throw BenchError(
          "receiver \(host) has not got the image"
        )
      }
    }
  }

  private func empty(_ directory: String) throws {
    for name in try FileManager.default.contentsOfDirectory(atPath: directory) {
      try FileManager.default.removeItem(atPath: "\(directory)/\(name)")
    }
  }

  private func record(_ transfers: [String: [Transfer]], _ receivers: Int, _ loss: Int, _ megabits: Int)
    throws
  {
    let plain = transfers["plain"]?.map(\.goodput).median
    for system in systems {
      guard let all = transfers[system.name] else { continue }
      let samples = all.map(\.goodput)
      var details: [String: Double] = [:]
      for key in all[0].details.keys { details[key] = all.compactMap { $0.details[key] }.median }
      let line = Line(
        system: system.name, receivers: receivers, lossPercent: loss, linkMegabits: megabits,
        imageBytes: imageBytes, median: samples.median, min: samples.min()!, max: samples.max()!,
        samples: samples, ratioToPlain: plain.map { samples.median / $0 }, details: details)
      lines.append(line)
      FileHandle.standardOutput.write(try encoder.encode(line) + Data("\n".utf8))
    }
  }

  /// Medians, and each as a share of the plain sender's.
  func showTable() {
    say("\nGoodput, MB/s, medians of \(runs); in brackets the share of the plain sender's.")
    say(row(["receivers", "loss", "link"] + systems.map(\.name)))
    var seen: [String] = []
    for line in lines {
      let key = "\(line.receivers) \(line.lossPercent) \(line.linkMegabits)"
      guard !seen.contains(key) else { continue }
      seen.append(key)
      let link = line.linkMegabits == 0 ? "-" : "\(line.linkMegabits) Mbit"
      let cells = systems.map { system -> String in
        guard
          let found = lines.first(where: {
            $0.system == system.name && "\($0.receivers) \($0.lossPercent) \($0.linkMegabits)" == key
          })
        else { return "failed" }
        let share = found.ratioToPlain.map { String(format: " (%.0f %%)", $0 * 100) } ?? ""
        return String(format: "%.1f", found.median / 1e6) + share
      }
      say(row(["\(line.receivers)", "\(line.lossPercent) %", link] + cells))
    }
  }

  private func row(_ cells: [String]) -> String {
    cells.map { $0.padding(toLength: max(16, $0.count), withPad: " ", startingAt: 0) }.joined()
  }

  private func megabytes(_ bytes: Double) -> String { String(format: "%.1f MB/s", bytes / 1e6) }
}

/// Seconds, by the clock that all hosts share.
func now() -> Double { Double(monotonicNanoseconds()) / 1e9 }
