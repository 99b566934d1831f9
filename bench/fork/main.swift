// bench-fork --image DIR --programs DIR [--quick] [--only fork|busy|memory|slowdown|peers] [--hosts N
// [--lockstep|--disk|--avoidance|--replicate --rounds-image DIR]]; with --replicate --only checkpoints|rounds
// Started by bench/fork/run, which makes the image. JSON lines on stdout; progress and the table on stderr.
import BenchSupport
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

let hosts = value(of: "--hosts").flatMap { Int($0) }

/// The same with several hosts, a lab's.
func measure(hosts: Int, in workspace: Workspace) throws {
  let isLockstep = CommandLine.arguments.contains("--lockstep")
  let isDisk = CommandLine.arguments.contains("--disk")
  let isAvoidance = CommandLine.arguments.contains("--avoidance")
  let isReplicate = CommandLine.arguments.contains("--replicate")
  let recorder = Recorder(
    bench: isReplicate
      ? "replicate" : isLockstep ? "lockstep" : isDisk ? "disk" : isAvoidance ? "avoidance" : "fork")
  let snowfork = try Snowfork(programs: programs, image: imageDirectory, in: workspace)
  workspace.beforeEnd { try? snowfork.labDown() }
  try snowfork.labUp(hosts: hosts)
  if isReplicate {
    if only != "rounds" {
      try ReplicateBench(snowfork: snowfork, recorder: recorder, quick: quick).run()
    }
    if only != "checkpoints", let image = value(of: "--rounds-image") {
      try RoundsBench(
        snowfork: snowfork, recorder: recorder, workspace: workspace, imageDirectory: image, quick: quick
      ).run()
    }
    Summary.list(recorder)
  } else if isAvoidance {
    try AvoidanceBench(
      snowfork: snowfork, recorder: recorder, hosts: hosts, quick: quick, plot: value(of: "--plot")
    ).run()
  } else if isDisk {
    try DiskBench(snowfork: snowfork, recorder: recorder, hosts: hosts, quick: quick).run()
  } else if isLockstep {
    try LockstepBench(snowfork: snowfork, recorder: recorder, hosts: hosts, quick: quick).run()
  } else {
    try HostsBench(snowfork: snowfork, recorder: recorder, hosts: hosts, quick: quick).run()
  }
}

/// Measures everything wanted; a part that fails is told of and leaves the others to be measured. Returns how many did.
func measure(in workspace: Workspace) throws -> Int {
  let recorder = Recorder()
  let snowfork = try Snowfork(programs: programs, image: imageDirectory, in: workspace)
  let image = try GuestImage(directory: imageDirectory)
  var failures = 0
  func part(_ name: String, _ measure: () throws -> Void) {
    guard only == nil || only == name else { return }
    do { try measure() } catch {
      say("bench-fork: \(name): \(error)")
      failures += 1
      try? snowfork.destroy("dev")
    }
  }
  let forks = ForkBench(snowfork: snowfork, recorder: recorder, quick: quick)
  part("fork") { try forks.run() }
  part("busy") { try forks.runBusy() }
  part("memory") { try MemoryBench(snowfork: snowfork, recorder: recorder, quick: quick).run() }
  part("slowdown") { try SlowdownBench(snowfork: snowfork, recorder: recorder, quick: quick).run() }
  for size in quick ? [GuestSize.small, .medium] : [.small, .medium, .large] {
    let repetitions = quick ? 1 : size == .small ? 5 : 3
    let qemu = QEMUPeer(image: image, recorder: recorder, workspace: workspace)
    let libvirt = LibvirtPeer(image: image, recorder: recorder, workspace: workspace)
    part("peers") { try qemu.run(size, repetitions: repetitions) }
    part("peers") { try libvirt.run(size, repetitions: repetitions) }
  }
  Summary(recorder: recorder).show()
  return failures
}

var failedParts = 0
do {
  let workspace = try Workspace()
  let signals = workspace.closeOnSignals()
  defer {
    workspace.close()
    signals.forEach { $0.cancel() }
  }
  if let hosts {
    try measure(hosts: hosts, in: workspace)
  } else {
    failedParts = try measure(in: workspace)
  }
} catch {
  say("bench-fork: \(error)")
  exit(1)
}
exit(failedParts == 0 ? 0 : 1)
