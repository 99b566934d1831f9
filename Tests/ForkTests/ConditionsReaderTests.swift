import Fork
import Foundation
import ReplicationPolicy
import Testing

/// The circumstances of a device, of directories made here in the places of /sys and /proc.
struct ConditionsReaderTests {
  private final class Directory {
    let path = "/tmp/snowfork-conditions-" + String(UInt64.random(in: 0...UInt64.max), radix: 36)

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func write(_ file: String, _ text: String) throws {
      let whole = "\(path)/\(file)"
      try FileManager.default.createDirectory(
        atPath: (whole as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
      try (text + "\n").write(toFile: whole, atomically: true, encoding: .utf8)
    }
  }

  private func power(_ files: [String: String]) throws -> PolicyConditions.Power? {
    let directory = Directory()
    for (file, text) in files { try directory.write(file, text) }
    return ConditionsReader(powerSupplies: directory.path).power()
  }

  private static let mains = ["AC/type": "Mains"]
  private static let battery = ["BAT0/type": "Battery", "BAT0/present": "1"]

  private static func battery(_ status: String, _ percent: String, _ more: [String: String] = [:]) -> [String:
    String]
  {
    battery.merging(["BAT0/status": status, "BAT0/capacity": percent]) { $1 }.merging(more) { $1 }
  }

  private static let supplies: [([String: String], PolicyConditions.Power?)] = [
    ([:], .external),
    (mains.merging(["AC/online": "0"]) { $1 }, .external),
    (battery("Discharging", "63", ["AC/type": "Mains", "AC/online": "0"]), .battery(percent: 63)),
    (battery("Discharging", "63", ["AC/type": "Mains", "AC/online": "1"]), .external),
    (battery("Not charging", "100", ["C1/type": "USB", "C1/online": "0"]), .battery(percent: 100)),
    (battery("Charging", "5"), .external),
    (battery("Full", "100"), .external),
    (battery("Discharging", "5"), .battery(percent: 5)),
    (battery("Unknown", "5"), nil),
    (battery("Discharging", "a lot"), .battery(percent: nil)),
    (
      battery(
        "Discharging", "20", ["BAT1/type": "Battery", "BAT1/status": "Unknown", "BAT1/capacity": "80"]),
      .battery(percent: 50)
    ),
    // A battery that is taken out, and one of a mouse.
    (["BAT0/type": "Battery", "BAT0/present": "0", "BAT0/status": "Discharging"], .external),
    (
      ["hid/type": "Battery", "hid/scope": "Device", "hid/status": "Discharging", "hid/capacity": "9"],
      .external
    ),
  ]

  @Test(arguments: 0..<supplies.count)
  func `the power is what the supplies say together`(index: Int) throws {
    let (files, expected) = Self.supplies[index]
    #expect(try power(files) == expected, "\(files)")
  }

  @Test func `what can not be listed is not known`() throws {
    let directory = Directory()
    try directory.write("file", "")
    #expect(ConditionsReader(powerSupplies: directory.path + "/none").power() == .external)
    #expect(ConditionsReader(powerSupplies: directory.path + "/file").power() == nil)
  }

  /// Of two virtual CPUs and a thread that is none. Ticks are hundredths of a second here as everywhere.
  private func writeTimes(_ directory: Directory, cpus: [Int]) throws {
    for (index, ticks) in cpus.enumerated() {
      try directory.write("7/task/\(10 + index)/comm", "CPU \(index)/TCG")
      try directory.write("7/task/\(10 + index)/stat", Self.stat(name: "CPU \(index)/TCG", ticks))
    }
    try directory.write("7/task/7/comm", "qemu (x) y")
    try directory.write("7/task/7/stat", Self.stat(name: "qemu (x) y", 1_000_000))
  }

  private static func stat(name: String, _ ticks: Int) -> String {
    "7 (\(name)) S 1 7 7 0 -1 4194560 1 0 0 0 \(ticks - ticks / 3) \(ticks / 3) 0 0 20 0 3 0 1 2 3"
  }

  @Test func `a VM idles while its virtual CPUs run little and little was written`() throws {
    let directory = Directory()
    var reader = ConditionsReader(powerSupplies: directory.path, processes: directory.path)
    func look(_ second: Int, pages: UInt64? = 0) -> Bool? {
      reader.isIdle(pid: 7, now: .seconds(second), pagesWritten: pages)
    }
    #expect(look(100) == nil)
    try writeTimes(directory, cpus: [1000, 2000])
    #expect(look(101) == nil)
    // 90 ms in a second by both.
    try writeTimes(directory, cpus: [1004, 2005])
    #expect(look(102) == true)
    #expect(look(102, pages: ConditionsReader.idlePagesMax) == true)
    #expect(look(102, pages: ConditionsReader.idlePagesMax + 1) == false)
    #expect(look(102, pages: nil) == true)
    // 200 ms in two.
    try writeTimes(directory, cpus: [1014, 2015])
    #expect(look(104) == false)
    // Asked too soon the answer is the last one.
    try writeTimes(directory, cpus: [2000, 3000])
    #expect(reader.isIdle(pid: 7, now: .seconds(104) + .milliseconds(500), pagesWritten: 0) == false)
    // Another process is another VM.
    #expect(reader.isIdle(pid: 8, now: .seconds(200), pagesWritten: 0) == nil)
    #expect(look(201) == nil)
    #expect(look(202) == true)
  }

  @Test func `without threads that are called so the process counts`() throws {
    let directory = Directory()
    var reader = ConditionsReader(powerSupplies: directory.path, processes: directory.path)
    try directory.write("9/stat", Self.stat(name: "qemu", 500))
    #expect(reader.isIdle(pid: 9, now: .seconds(1), pagesWritten: nil) == nil)
    try directory.write("9/stat", Self.stat(name: "qemu", 700))
    #expect(reader.isIdle(pid: 9, now: .seconds(3), pagesWritten: nil) == false)
    try directory.write("9/stat", "what is this")
    #expect(reader.isIdle(pid: 9, now: .seconds(5), pagesWritten: nil) == nil)
  }
}
