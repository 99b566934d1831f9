// bench-fork --image DIR --programs DIR [--quick] [--only fork|memory|slowdown|peers]
// Started by bench/fork/run, which makes the image. JSON lines on stdout; progress and the table on stderr.
import Foundation
import Glibc
import LinuxSystem

func value(of option: String) -> String? {
  let arguments = CommandLine.arguments
  return arguments.firstIndex(of: option).flatMap { $0 + 1 < arguments.count ? arguments[$0 + 1] : nil }
}

guard let imageDirectory = value(of: "--image"), let programs = value(of: "--programs") else {
  say("bench-fork: --image and --programs are needed. Use bench/fork/run.")
  exit(2)
}
let quick = CommandLine.arguments.contains("--quick")
let only = value(of: "--only")
ignoreBrokenPipes()

func measure(in workspace: Workspace) throws {
  let recorder = Recorder()
  let snowfork = try Snowfork(programs: programs, image: imageDirectory, in: workspace)
  func wants(_ part: String) -> Bool { only == nil || only == part }
  if wants("fork") { try ForkBench(snowfork: snowfork, recorder: recorder, quick: quick).run() }
  if wants("memory") { try MemoryBench(snowfork: snowfork, recorder: recorder, quick: quick).run() }
  if wants("slowdown") { try SlowdownBench(snowfork: snowfork, recorder: recorder, quick: quick).run() }
  if wants("peers") {
    let image = try GuestImage(directory: imageDirectory)
    for size in quick ? [GuestSize.small, .medium] : [.small, .medium, .large] {
      let repetitions = quick ? 1 : size == .small ? 5 : 3
      try QEMUPeer(image: image, recorder: recorder, workspace: workspace).run(size, repetitions: repetitions)
      try LibvirtPeer(image: image, recorder: recorder, workspace: workspace).run(
        size, repetitions: repetitions)
    }
  }
  Summary(recorder: recorder).show()
}

do {
  let workspace = try Workspace()
  let signals = workspace.closeOnSignals()
  defer {
    workspace.close()
    signals.forEach { $0.cancel() }
  }
  try measure(in: workspace)
} catch {
  say("bench-fork: \(error)")
  exit(1)
}
