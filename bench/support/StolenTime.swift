import Foundation

/// What the host of this virtual machine took of its processors while they had something to do (`steal` of proc_stat(5)). Where it
/// takes much, times are not those of the programs: a device of 5 % of a processor waits for each of its slices.
public struct StolenTime {
  private let ticks = Self.ticks
  private let begin = ContinuousClock.now

  /// From here on.
  public init() {}

  /// Of all processors' time since then.
  public var percent: Double {
    let wall = (ContinuousClock.now - begin) / .seconds(1) * Double(sysconf(Int32(_SC_NPROCESSORS_ONLN)))
    return wall > 0 ? (Self.ticks - ticks) / Double(sysconf(Int32(_SC_CLK_TCK))) / wall * 100 : 0
  }

  private static var ticks: Double {
    let words = ((try? String(contentsOfFile: "/proc/stat", encoding: .utf8)) ?? "")
      .prefix { $0 != "\n" }.split(separator: " ")
    return words.count > 8 ? Double(words[8]) ?? 0 : 0
  }
}
