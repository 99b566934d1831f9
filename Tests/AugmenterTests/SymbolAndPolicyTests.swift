import Augmenter
import Foundation
import Testing

@Suite("Symbols of ELF files, and which system calls run away")
struct SymbolAndPolicyTests {
  private static func compile(_ source: String, _ options: [String]) throws -> [UInt8] {
    let directory = NSTemporaryDirectory() + "/augmenter-" + UUID().uuidString
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: directory) }
    try source.write(toFile: directory + "/a.c", atomically: true, encoding: .utf8)
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = ["cc", "-O1", "-o", directory + "/a", directory + "/a.c"] + options
    try process.run()
    process.waitUntilExit()
    try #require(process.terminationStatus == 0)
    return Array(try Data(contentsOf: URL(fileURLWithPath: directory + "/a")))
  }

  private static let source =
    "int data = 3; static int hidden(int a) { return a * data; }\n"
    + "__attribute__((noinline)) int block(int a) { return hidden(a) + 1; }\n"
    + "int main(int c, char **v) { (void)v; return block(c); }\n"

  @Test(
    "Functions of static, position-dependent and position-independent programs and of libraries, stripped too",
    arguments: [
      ["-static"], ["-no-pie"], ["-pie", "-fPIE"], ["-shared", "-fPIC"], ["-shared", "-fPIC", "-s"],
    ])
  func functions(_ options: [String]) throws {
    let bytes = try Self.compile(Self.source, options)
    let file = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 16)
    defer { file.deallocate() }
    file.copyBytes(from: bytes)
    let symbols = try #require(ELFSymbols(UnsafeRawBufferPointer(file)))
    let address = try #require(symbols.function("block"))
    #expect(address != 0 && symbols.function("data") == nil && symbols.function("bloc") == nil)
    // Two spellings of where it is: the code at the file's place is a function's, and leads back to the address.
    let offset = try #require((0..<UInt64(file.count)).first { symbols.address(ofOffset: $0) == address })
    #expect(symbols.address(ofOffset: offset) == address)
  }

  @Test("A stripped program has no such function; what is no ELF file, or a damaged one, is no error")
  func none() throws {
    let stripped = try Self.compile(Self.source, ["-no-pie", "-s"])
    #expect(stripped.withUnsafeBytes { ELFSymbols($0).map { $0.function("block") } == .some(nil) })
    #expect(Array("#!/bin/sh\n".utf8).withUnsafeBytes { ELFSymbols($0) == nil })
    let file = try Self.compile(Self.source, ["-no-pie"])
    for seed in 1...500 as ClosedRange<UInt64> {
      var numbers = Numbers(seed: seed)
      var damaged = file
      for _ in 0..<4 { damaged[Int(numbers.next(64))] = UInt8(numbers.next(256)) }
      for count in [Int(numbers.next(UInt64(file.count))), file.count] {
        damaged.withUnsafeBytes { bytes in
          _ = ELFSymbols(UnsafeRawBufferPointer(rebasing: bytes[..<count])).map { $0.function("block") }
        }
      }
    }
  }

  /// Runs the filter as the kernel would: whether it lets the call pass.
  private func allows(_ filter: [UInt8], _ number: UInt32, _ arguments: [UInt64], arch: UInt32 = 0xC000_003E)
    -> Bool
  {
    var data = [UInt8](repeating: 0, count: 64)
    func put(_ value: UInt64, _ at: Int, _ size: Int) {
      for index in 0..<size { data[at + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index)) }
    }
    put(UInt64(number), 0, 4)
    put(UInt64(arch), 4, 4)
    for (index, argument) in arguments.enumerated() { put(argument, 16 + 8 * index, 8) }
    var (at, accumulator) = (0, UInt32(0))
    while true {
      let code = filter[at * 8..<at * 8 + 8].map { UInt32($0) }
      let value = code[4] | code[5] << 8 | code[6] << 16 | code[7] << 24
      at += 1
      switch code[0] {
      case 0x20: accumulator = (0..<4).reduce(0) { $0 | UInt32(data[Int(value) + $1]) << UInt32(8 * $1) }
      case 0x15: at += Int(accumulator == value ? code[2] : code[3])
      case 0x54: accumulator &= value
      default: return value == 0x7fff_0000
      }
    }
  }

  @Test("The filter: a process's own memory is free, what others would see is not")
  func filter() {
    let alone = SystemCallPolicy.filter(alone: true)
    #expect(alone.count % 8 == 0 && alone.count / 8 < 4096)
    for number in [9, 12, 11, 10, 25, 14, 39, 228] as [UInt32] {
      #expect(allows(alone, number, [0, 4096, 3, 0x22, ~0, 0]), "\(number)")
    }
    #expect(!allows(alone, 9, [0, 4096, 3, 0x21, ~0, 0]))  // shared
    #expect(!allows(alone, 9, [0, 4096, 3, 0x2, 3, 0]))  // a file
    #expect(!allows(alone, 9, [0, 4096, 3, 0x122, ~0, 0]))  // growing
    #expect(allows(alone, 28, [0, 4096, 4]) && !allows(alone, 28, [0, 4096, 10]))
    #expect(allows(alone, 202, [0, 129, 1]) && !allows(alone, 202, [0, 128, 1]))
    for number in [1, 44, 56, 57, 58, 59, 60, 231, 318, 63, 35, 7, 34, 62, 434, 0x4000_0000] as [UInt32] {
      #expect(!allows(alone, number, [1, 2, 3]), "\(number)")
    }
    #expect(!allows(alone, 12, [], arch: 0x4000_0003))
    let kept = SystemCallPolicy.filterKept()
    for number in [9, 10, 11, 12, 25, 14, 39, 228] as [UInt32] {
      #expect(allows(kept, number, [0, 4096, 3, 0x22, ~0, 0]), "\(number)")
    }
    // What home may have changed since: users, limits, parents, processors, files.
    for number in [102, 104, 107, 108, 97, 110, 111, 204, 100, 0, 3, 5, 8, 13, 17, 257] as [UInt32] {
      #expect(!allows(kept, number, [0, 4096, 4]), "\(number)")
    }
    let threaded = SystemCallPolicy.filter(alone: false)
    for number in [9, 10, 11, 12, 25, 28, 202] as [UInt32] {
      #expect(!allows(threaded, number, [0, 1, 4, 0x22]), "\(number)")
    }
    #expect(allows(threaded, 39, []))
  }

  @Test("What the filter stops at: reads of plain files may go on, writes may not")
  func questions() {
    #expect(SystemCallPolicy.question(0, alone: true) == .plainFile)
    #expect(SystemCallPolicy.question(1, alone: true) == .home)
    #expect(SystemCallPolicy.question(257, alone: true) == .path(directory: 0, path: 1, opens: true))
    #expect(SystemCallPolicy.question(9, alone: true) == .mapFile)
    #expect(SystemCallPolicy.question(9, alone: false) == .home)
    #expect(SystemCallPolicy.question(318, alone: true) == .home)  // getrandom
    #expect(SystemCallPolicy.question(63, alone: true) == .home)  // uname: a clone has another name
  }

  @Test("Faults by name, by call and by chance")
  func faults() throws {
    #expect(FaultPlan("nonsense") == nil && FaultPlan("damage:x") == nil && FaultPlan("damage:1:2") == nil)
    let second = try #require(FaultPlan("damage:2"))
    #expect(!second.strikes(.damage, call: 1) && second.strikes(.damage, call: 2))
    #expect(!second.strikes(.lie, call: 2))
    let random = try #require(FaultPlan("random:7"))
    var seen: Set<FaultPlan.Step> = []
    for call in 1...400 as ClosedRange<UInt64> {
      let steps = FaultPlan.Step.allCases.filter { random.strikes($0, call: call) }
      #expect(steps.count == 1)
      seen.formUnion(steps)
    }
    #expect(seen.count == FaultPlan.Step.allCases.count)
  }

  @Test("The report is one JSON object")
  func report() throws {
    var report = OffloadReport(programStatus: 130, watched: true)
    report.counts[0] = 3
    let object = try #require(
      try JSONSerialization.jsonObject(with: Data(report.json.utf8)) as? [String: Any])
    #expect(object["program_status"] as? Int == 130 && object["watched"] as? Bool == true)
    #expect(object["calls"] as? Int == 3 && object["takeovers"] as? Int == 0 && object.count == 19)
    #expect(report.json.hasSuffix("}\n"))
  }
}
