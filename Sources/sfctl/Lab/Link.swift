import ArgumentParser
import CloneNetwork

/// How a lab's host is connected to the others.
enum Link: String, Codable, CaseIterable {
  /// As fast as this machine is.
  case lan
  case wifi
  case mobile = "3g"

  /// A round trip's microseconds and bits a second as CloneCloud measured them (EuroSys 2011, section 6); nil: no limits.
  private var figures: (roundTrip: UInt64, up: UInt64, down: UInt64)? {
    switch self {
    case .lan: nil
    case .wifi: (66_000, 3_060_000, 7_290_000)
    case .mobile: (415_000, 160_000, 910_000)
    }
  }

  var isLimited: Bool { figures != nil }

  /// From the host, and to it; half of the round trip each. A relay's `lan` is 10 Gbit/s.
  var rates: (up: LinkRate, down: LinkRate) {
    let figures = figures ?? (roundTrip: 0, up: 10_000_000_000, down: 10_000_000_000)
    let delay = figures.roundTrip * 1000 / 2
    return (
      LinkRate(bytesPerSecond: figures.up / 8, delayNanoseconds: delay),
      LinkRate(bytesPerSecond: figures.down / 8, delayNanoseconds: delay)
    )
  }

  var text: String {
    guard let figures else { return rawValue }
    func megabits(_ bits: UInt64) -> String { "\(Double(bits) / 1e6)" }
    return "\(rawValue): \(figures.roundTrip / 1000) ms, \(megabits(figures.up)) Mbit/s up, "
      + "\(megabits(figures.down)) down"
  }
}

/// `wifi`, of the host that sfctl talks to, or `h2=3g`.
struct LinkArgument: ExpressibleByArgument {
  var host: String
  var link: Link

  init?(argument: String) {
    let parts = argument.split(separator: "=", omittingEmptySubsequences: false).map(String.init)
    guard parts.count <= 2, let last = parts.last, let link = Link(rawValue: last) else { return nil }
    self.link = link
    host = parts.count == 2 ? parts[0] : "h1"
  }
}
