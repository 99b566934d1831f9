import BenchSupport
import Foundation

/// One figure of one system at one size, with every sample that was taken of it.
struct Measurement: Encodable {
  var bench: String
  /// `snowfork`, or the peer: `virsh-save`, `migrate-file`, `migrate-live`, `savevm`, `cold-boot`.
  var system: String
  /// What was measured; the unit is the name's last word (`_us`, `_bytes`, `_percent`).
  var figure: String
  var ramMib: Int
  /// Memory that a program in the guest holds, filled with random bytes; the rest is as after the boot.
  var inUseMib: Int
  var clones: Int
  var median: Double
  var min: Double
  var max: Double
  var samples: [Double]
  var host: Host

  /// The machine the figures are of.
  struct Host: Encodable {
    var cpus = ProcessInfo.processInfo.activeProcessorCount
    var kernel = Host.firstLine("/proc/sys/kernel/osrelease")
    var processor = Host.processorName()
    var accelerator = "tcg"

    private static func firstLine(_ path: String) -> String {
      (try? String(contentsOfFile: path, encoding: .utf8))?.split(separator: "\n").first.map(String.init)
        ?? ""
    }

    private static func processorName() -> String {
      let cpuinfo = (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)) ?? ""
      let line = cpuinfo.split(separator: "\n").first { $0.hasPrefix("model name") }
      return line?.split(separator: ":").last.map { $0.trimmingCharacters(in: .whitespaces) } ?? ""
    }
  }
}

/// A guest that is measured: its RAM and how much of it a program fills.
struct GuestSize: Hashable {
  var ramMib: Int
  var inUseMib: Int

  static let small = GuestSize(ramMib: 256, inUseMib: 0)
  static let medium = GuestSize(ramMib: 1024, inUseMib: 600)
  static let large = GuestSize(ramMib: 4096, inUseMib: 2048)

  var name: String {
    let ram = ramMib < 1024 ? "\(ramMib) MiB" : "\(ramMib / 1024) GiB"
    return inUseMib == 0 ? ram : "\(ram), \(inUseMib) MiB in use"
  }
}

/// Takes the figures down: a JSON line on stdout as soon as each is known, and all of them for the table.
final class Recorder {
  private(set) var measurements: [Measurement] = []
  private let host = Measurement.Host()
  private let encoder: JSONEncoder

  private let bench: String

  init(bench: String = "fork") {
    self.bench = bench
    encoder = JSONEncoder()
    encoder.keyEncodingStrategy = .convertToSnakeCase
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
  }

  /// `samples` must not be empty: a figure nobody measured is not written down.
  func record(_ system: String, _ figure: String, _ size: GuestSize, clones: Int = 0, _ samples: [Double])
    throws
  {
    guard !samples.isEmpty else { throw BenchError("no sample of \(system)'s \(figure) was taken") }
    let measurement = Measurement(
      bench: bench, system: system, figure: figure, ramMib: size.ramMib, inUseMib: size.inUseMib,
      clones: clones,
      median: samples.median, min: samples.min()!, max: samples.max()!, samples: samples, host: host)
    measurements.append(measurement)
    FileHandle.standardOutput.write(try encoder.encode(measurement) + Data("\n".utf8))
  }

  func median(_ system: String, _ figure: String, _ size: GuestSize, clones: Int = 0) -> Double? {
    measurements.first {
      $0.system == system && $0.figure == figure && $0.ramMib == size.ramMib && $0.clones == clones
    }?.median
  }
}

/// A stopwatch of the monotonic clock.
struct Stopwatch {
  private let begin = ContinuousClock.now

  var microseconds: Double { (ContinuousClock.now - begin) / .microseconds(1) }
}
