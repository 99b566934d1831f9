import BenchSupport
import Foundation

/// `criu pre-dump` of one process in a guest, again and again: each has the pages that were written since the one before.
enum PreDumpChain {
  struct Round {
    var bytes: Double
    /// Since the one before began, by the guest's clock.
    var microseconds: Double
  }

  /// Boots a guest with `load` running in it and makes a chain of `rounds` behind the first dump, a round every `seconds`
  /// or as soon as CRIU is done. Bytes are of the pages alone.
  static func run(
    _ image: GuestImage, _ size: GuestSize, load: [String], rounds: Int, seconds: Double,
    in workspace: Workspace
  ) throws -> [Round] {
    let machine = try PeerMachine(.boot(image), size, in: workspace)
    defer { machine.end() }
    let agent = try AgentLink(path: machine.agentPath)
    try agent.execute(load)
    let text = try agent.execute(
      ["bash", "-c", script, "chain", "\(rounds)", "\(Int(seconds * 1e6))"], timeoutSeconds: 600)
    let lines = text.split(separator: "\n").map { $0.split(separator: " ").compactMap { Double($0) } }
    guard lines.count == rounds + 1, lines.allSatisfy({ $0.count == 2 && $0[0] > 0 }) else {
      throw BenchError("criu's rounds came to “\(text)”")
    }
    return zip(lines, lines.dropFirst()).map { Round(bytes: $1[0], microseconds: $1[1] - $0[1]) }
  }

  /// A line a round: the bytes of its pages, and when it began. Pages that were counted are given back: the next round
  /// asks its parent's page map alone.
  private static let script = """
    set -euo pipefail
    process=$(pidof sf-load)
    mkdir -p /tmp/chain
    mount -t tmpfs none /tmp/chain
    cd /tmp/chain
    due=${EPOCHREALTIME/./}
    for ((round = 0; round <= $1; round++)); do
      mkdir $round
      before=()
      ((round == 0)) || before=(--prev-images-dir ../$((round - 1)))
      begin=${EPOCHREALTIME/./}
      criu pre-dump --tree $process --images-dir /tmp/chain/$round --track-mem "${before[@]}" >&2
      echo "$(cat $round/pages-*.img | wc -c) $begin"
      for file in $round/pages-*.img; do : >$file; done
      due=$((due + $2))
      left=$((due - ${EPOCHREALTIME/./}))
      if ((left > 0)); then sleep $((left / 1000000)).$(printf %06d $((left % 1000000))); else due=$((due - left)); fi
    done
    """
}
