import Foundation
import LinuxSystem
import ReplicationPolicy

/// The circumstances of a device that this host can read: its power supply, and whether a VM does next to nothing.
package struct ConditionsReader: Sendable {
  /// Of one processor, by all virtual CPUs of the VM together: below that it idles.
  package static let idleShare = 0.1
  /// Written since the last checkpoint, 4 MiB: with more there is something to send, however little it runs now.
  package static let idlePagesMax: UInt64 = 1024

  private let powerSupplies: String
  private let processes: String
  private var lastLook: (pid: Int64, time: Duration, used: Duration)?
  private var runsLittle: Bool?

  /// `powerSupplies`: a directory like /sys/class/power_supply; `processes`: one like /proc.
  package init(powerSupplies: String, processes: String = "/proc") {
    self.powerSupplies = powerSupplies
    self.processes = processes
  }

  /// Linux' sysfs-class-power. Nil: what is there does not tell. Batteries of mice and the like are not the device's.
  package func power() -> PolicyConditions.Power? {
    func text(_ supply: String, _ file: String) -> String? {
      (try? readTextFile("\(powerSupplies)/\(supply)/\(file)"))?.trimmingCharacters(
        in: .whitespacesAndNewlines)
    }
    let names: [String]
    do { names = try FileManager.default.contentsOfDirectory(atPath: powerSupplies) } catch {
      return access(powerSupplies, F_OK) != 0 && errno == ENOENT ? .external : nil
    }
    let supplies = names.filter { text($0, "scope") != "Device" }
    let batteries = supplies.filter { text($0, "type") == "Battery" && text($0, "present") != "0" }
    let sources = supplies.filter { !["Battery", nil].contains(text($0, "type")) }.map { text($0, "online") }
    if batteries.isEmpty || sources.contains(where: { !["0", nil].contains($0) }) { return .external }
    let states = batteries.map { text($0, "status") }
    if states.contains("Charging") { return .external }
    guard states.contains("Discharging") || sources.contains("0") else {
      return states.allSatisfy { ["Full", "Not charging"].contains($0) } ? .external : nil
    }
    let levels = batteries.compactMap { text($0, "capacity").flatMap { Int($0) } }.filter { 0...100 ~= $0 }
    return .battery(percent: levels.isEmpty ? nil : levels.reduce(0, +) / levels.count)
  }

  /// Whether the VM idles. Nil: not known yet; it is asked again a second later or more. `now`: of any fixed moment;
  /// `pagesWritten`: since the last checkpoint, nil: not known.
  package mutating func isIdle(pid: Int64, now: Duration, pagesWritten: UInt64?) -> Bool? {
    if let used = processorTime(of: pid) {
      if let last = lastLook, last.pid == pid {
        let passed = now - last.time
        if passed >= .seconds(1) {
          runsLittle = (used - last.used) / passed < Self.idleShare
          lastLook = (pid, now, used)
        }
      } else {
        runsLittle = nil
        lastLook = (pid, now, used)
      }
    } else {
      (runsLittle, lastLook) = (nil, nil)
    }
    if let pagesWritten, pagesWritten > Self.idlePagesMax { return false }
    return runsLittle
  }

  /// Of the virtual CPUs' threads, as QEMU names them; of the whole process where it does not.
  private func processorTime(of pid: Int64) -> Duration? {
    let tasks = "\(processes)/\(pid)/task"
    let threads = (try? FileManager.default.contentsOfDirectory(atPath: tasks)) ?? []
    let processors = threads.filter { (try? readTextFile("\(tasks)/\($0)/comm"))?.hasPrefix("CPU ") == true }
    let files = processors.isEmpty ? ["\(processes)/\(pid)/stat"] : processors.map { "\(tasks)/\($0)/stat" }
    var ticks: Int64 = 0
    for file in files {
      // The name may have spaces and brackets: proc(5).
      guard let text = try? readTextFile(file), let end = text.lastIndex(of: ")") else { return nil }
      let fields = text[text.index(after: end)...].split(separator: " ")
      guard fields.count > 12, let user = Int64(fields[11]), let system = Int64(fields[12]) else {
        return nil
      }
      ticks += user + system
    }
    return .seconds(ticks) / sysconf(CInt(_SC_CLK_TCK))
  }
}
