import BenchSupport
import Foundation

/// The table at the end: medians, the peers' against ours, and what was wanted.
struct Summary {
  let recorder: Recorder

  func show() {
    forks()
    peers()
    wanted()
  }

  /// Every figure a line, for what has no table of its own.
  static func list(_ recorder: Recorder) {
    for one in recorder.measurements {
      say(
        String(
          format: "%5d MiB  %-14@ %-36@ %12.*f  (%.*f … %.*f)", one.ramMib, one.system as NSString,
          one.figure as NSString, one.digits, one.median, one.digits, one.min, one.digits, one.max))
    }
  }

  private func forks() {
    let figures = ["pause_us", "first_ready_us", "fork_us", "activate_us_max", "ticket_us", "command_us"]
    let rows = recorder.measurements.filter { $0.system == "snowfork" && $0.figure == "fork_us" }
    guard !rows.isEmpty else { return }
    say(
      "\nForks, medians. The fork is from the call to the last clone's answer; its slots were made with the ticket."
    )
    say(line("VM", ["clones", "pause", "first", "fork", "activate", "ticket", "sfctl"]))
    for row in rows {
      let size = GuestSize(ramMib: row.ramMib, inUseMib: row.inUseMib)
      let values = figures.map {
        recorder.median("snowfork", $0, size, clones: row.clones).map(milliseconds) ?? "-"
      }
      say(line(size.name, ["\(row.clones)"] + values))
    }
  }

  private func peers() {
    let sizes = [GuestSize.small, .medium, .large].filter {
      recorder.median("cold-boot", "restore_us", $0) != nil
    }
    for size in sizes {
      say("\nPeers, medians: \(size.name). Ratios are to snowfork's fork into one clone.")
      say(line("", ["pause", "ratio", "answers", "pause + answers", "ratio"]))
      let pause = recorder.median("snowfork", "pause_us", size, clones: 1)
      let fork = recorder.median("snowfork", "ticket_and_fork_us", size, clones: 1)
      if let pause, let fork {
        say(line("snowfork, slots included", [milliseconds(pause), "1", "-", milliseconds(fork), "1"]))
      }
      for peer in ["virsh-save", "migrate-file", "savevm", "migrate-live", "cold-boot"] {
        let stop = recorder.median(peer, "pause_us", size)
        let restore = recorder.median(peer, "restore_us", size)
        let whole = restore.map { $0 + (stop ?? 0) }
        say(
          line(
            peer,
            [
              stop.map(milliseconds) ?? "-", ratio(stop, pause), restore.map(milliseconds) ?? "-",
              whole.map(milliseconds) ?? "-", ratio(whole, fork),
            ]))
      }
    }
  }

  private func wanted() {
    say("\nWanted:")
    for (size, clones) in [(GuestSize.small, 1), (.small, 32), (.medium, 8), (.large, 8)] {
      atMost("pause of \(size.name), \(clones) clones", "pause_us", size, clones, 10_000, milliseconds)
    }
    atMost(
      "pause of a busy parent, \(GuestSize.medium.name)", "busy_pause_us", .medium, 1, 10_000, milliseconds)
    atMost("one warm clone ready", "fork_us", .small, 1, 60_000, milliseconds)
    atMost("32 clones ready", "fork_us", .small, 32, 1_000_000, milliseconds)
    for clones in [8, 32] {
      atMost(
        "private memory of idle clone \(clones)", "last_clone_private_bytes", .small, clones, 30e6,
        { String(format: "%.1f MB", $0 / 1e6) })
    }
    for run in ["first", "second"] {
      atMost(
        "slowdown of the \(run) run in a clone", "clone_\(run)_slowdown_percent", .small, 1, 3,
        { String(format: "%.1f %%", $0) })
    }
    let pause = recorder.median("snowfork", "pause_us", .medium, clones: 1)
    for peer in ["virsh-save", "migrate-file"] {
      guard let pause, let stop = recorder.median(peer, "pause_us", .medium) else { continue }
      verdict(
        "pause of \(peer) at \(GuestSize.medium.name)", stop / pause >= 20,
        "\(ratio(stop, pause)) times ours (≥ 20)")
    }
  }

  private func atMost(
    _ what: String, _ figure: String, _ size: GuestSize, _ clones: Int, _ limit: Double,
    _ text: (Double) -> String
  ) {
    guard let value = recorder.median("snowfork", figure, size, clones: clones) else { return }
    verdict(what, value <= limit, "\(text(value)) (≤ \(text(limit)))")
  }

  private func verdict(_ what: String, _ reached: Bool, _ text: String) {
    say("  \(mark(reached)) \(what): \(text)")
  }

  private func ratio(_ peer: Double?, _ own: Double?) -> String {
    guard let peer, let own, own > 0 else { return "-" }
    return String(format: "%.1f", peer / own)
  }

  private func line(_ first: String, _ rest: [String]) -> String {
    first.padding(toLength: 26, withPad: " ", startingAt: 0)
      + rest.map { String(repeating: " ", count: max(1, 17 - $0.count)) + $0 }.joined()
  }
}

/// Of a figure that is wanted.
func mark(_ isReached: Bool) -> String { isReached ? "reached    " : "NOT reached" }

func milliseconds(_ microseconds: Double) -> String { String(format: "%.1f ms", microseconds / 1000) }

extension Measurement {
  /// Behind the point, in a table.
  fileprivate var digits: Int { figure.hasSuffix("_ratio") ? 3 : figure.hasSuffix("_per_s") ? 1 : 0 }
}
