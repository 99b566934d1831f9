import BenchSupport
import Foundation
import Synchronization

/// What programs take at home alone, each in a VM of its own beside everything else: a processor's few percent are all that
/// they use.
final class HomeRuns: Sendable {
  private struct State {
    var runs: [String: Device.Run] = [:]
    var failure: (any Error)?
  }

  private let device: Device
  private let limitS: Double
  private let state = Mutex(State())
  private let pending = DispatchGroup()

  init(device: Device, limitS: Double) {
    self.device = device
    self.limitS = limitS
  }

  func begin(_ programs: [(program: BenchProgram, inputs: [BenchProgram.Input])], cpuPercent: Int) throws {
    for (program, inputs) in programs {
      let vm = "home-" + program.name
      try device.start(vm, cpuPercent: cpuPercent)
      DispatchQueue(label: vm).async(group: pending) { [self] in
        do {
          // What runs first in a VM also fills caches of translated code.
          _ = try device.run(program, inputs[0], on: vm, limitS: limitS)
          for input in inputs {
            let run = try device.run(program, input, on: vm, limitS: limitS)
            say("  \(program.name) \(input.name) at home: \(Int(run.microseconds / 1e6)) s")
            state.withLock { $0.runs[Self.key(program, input)] = run }
          }
          try device.destroy(vm)
        } catch {
          state.withLock { $0.failure = error }
        }
      }
    }
  }

  /// When all of them have ended.
  func end() throws {
    pending.wait()
    if let failure = state.withLock({ $0.failure }) { throw failure }
  }

  /// After `end`.
  func run(of program: BenchProgram, _ input: BenchProgram.Input) -> Device.Run {
    state.withLock { $0.runs[Self.key(program, input)]! }
  }

  private static func key(_ program: BenchProgram, _ input: BenchProgram.Input) -> String {
    "\(program.name) \(input.name)"
  }
}
