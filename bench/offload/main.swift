// bench-offload --image DIR --programs-directory DIR [--quick] [--links wifi,3g,lan] [--programs NAME,…] [--limit SECONDS]
//   [--no-standby] [--largest]
// Started by bench/offload/run, which makes the image. JSON lines on stdout; progress and the table on stderr.
import BenchSupport
import Foundation
import Glibc
import LinuxSystem

func value(of option: String) -> String? {
  let arguments = CommandLine.arguments
  return arguments.firstIndex(of: option).flatMap { $0 + 1 < arguments.count ? arguments[$0 + 1] : nil }
}

func list(_ option: String, among known: [String]) -> [String] {
  guard let names = value(of: option)?.split(separator: ",").map(String.init) else { return known }
  for name in names where !known.contains(name) {
    say("bench-offload: \(option) knows no \(name). There are: \(known.joined(separator: ", ")).")
    exit(2)
  }
  return names
}

guard let image = value(of: "--image"), let programs = value(of: "--programs-directory") else {
  say("bench-offload: --image and --programs-directory are needed. Use bench/offload/run.")
  exit(2)
}
let quick = CommandLine.arguments.contains("--quick")
let links = list("--links", among: ["wifi", "3g", "lan"])
let names = list("--programs", among: BenchProgram.all.map(\.name))
let limitS = value(of: "--limit").flatMap { Double($0) } ?? (quick ? 120 : 1500)
ignoreBrokenPipes()

do {
  let workspace = try Workspace()
  defer { workspace.close() }
  let sources = workspace.closeOnSignals()
  defer { _ = sources }
  let device = try Device(programs: programs, image: image, in: workspace)
  workspace.beforeEnd { try? device.labDown() }
  let bench = OffloadBench(
    device: device, links: links, programs: BenchProgram.all.filter { names.contains($0.name) }, quick: quick,
    largest: CommandLine.arguments.contains("--largest"), limitS: limitS,
    standby: !CommandLine.arguments.contains("--no-standby"))
  do {
    try bench.run()
  } catch {
    say("bench-offload: \(error)")
    workspace.close()
    exit(1)
  }
} catch {
  say("bench-offload: \(error)")
  exit(1)
}
