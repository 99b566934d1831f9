// bench-mcdist [--quick] [--receivers 1,8,32] [--loss 0,1,5] [--runs N] [--only SYSTEM,…] [--mib 32] [--link 0,100]
// One image from one sender to many receivers, each a process in a network namespace of its own: Mcdist and its peers.
// JSON lines on stdout; progress and the table on stderr.
import BenchSupport
import Foundation
import Glibc
import LinuxSystem

func value(of option: String) -> String? {
  let arguments = CommandLine.arguments
  return arguments.firstIndex(of: option).flatMap { $0 + 1 < arguments.count ? arguments[$0 + 1] : nil }
}

func numbers(_ option: String, _ usual: [Int]) -> [Int] {
  value(of: option).map { $0.split(separator: ",").compactMap { Int($0) } } ?? usual
}

ignoreBrokenPipes()
do {
  if let role = CommandLine.arguments.firstIndex(of: "--role") {
    try Role.run(Array(CommandLine.arguments.dropFirst(role + 1)))
    exit(0)
  }
  guard geteuid() == 0 else { throw BenchError("network namespaces need root") }
  let quick = CommandLine.arguments.contains("--quick")
  let only = value(of: "--only").map { $0.split(separator: ",").map(String.init) }
  let bench = try Bench(
    mebibytes: numbers("--mib", [quick ? 16 : 32])[0], runs: numbers("--runs", [quick ? 1 : 3])[0],
    systems: System.all.filter { only?.contains($0.name) ?? true })
  defer { bench.close() }
  for link in numbers("--link", [0]) {
    for receivers in numbers("--receivers", quick ? [8] : [1, 8, 32]) {
      try bench.measure(
        receivers: receivers, losses: numbers("--loss", quick ? [1] : [0, 1, 5]), megabits: link)
    }
  }
  bench.showTable()
} catch {
  say("bench-mcdist: \(error)")
  exit(1)
}
